// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels know of a crop: the taps of its axes, from its window or from tables.
#pragma once

#include "arena.h"

namespace racnn::cpu::RACNN_ISA {

// The taps of one axis: of `out` outputs in `size` pixels.
template <typename T>
struct AxisTaps {
  const Tap<T>* taps;
  int32_t size, out;

  const Tap<T>& operator[](int32_t j) const { return taps[j]; }

  // visit(output, pixel, weight)
  template <typename Visit>
  void each(const Visit& visit) const {
    for (int32_t j = 0; j < out; ++j) {
      if (taps[j].lower != kOutside) visit(j, taps[j].lower, taps[j].w_lower);
      if (taps[j].upper != kOutside) visit(j, taps[j].upper, taps[j].w_upper);
    }
  }
};

template <typename T>
AxisTaps<T> axis_taps(Arena& arena, const Axis<T>& axis) {
  Tap<T>* taps = arena.take<Tap<T>>(axis.out);
  for (int32_t j = 0; j < axis.out; ++j) taps[j] = make_tap(axis, j);
  return {taps, axis.size, axis.out};
}

// Those of crop n in a table; entries outside become kOutside with weight zero.
template <typename T>
AxisTaps<T> axis_taps(Arena& arena, const TapTable<T>& table, int64_t n, int32_t size, int32_t out) {
  Tap<T>* taps = arena.take<Tap<T>>(out);
  const int32_t* pixels = table.pixels + n * out;
  const T* weights = table.weights + n * out * 2;
  for (int32_t j = 0; j < out; ++j) {
    const int64_t lower = pixels[j], upper = lower + 1;
    taps[j] = {kOutside, kOutside, T(0), T(0)};
    if (lower >= 0 && lower < size) {
      taps[j].lower = int32_t(lower);
      taps[j].w_lower = weights[2 * j];
    }
    if (upper >= 0 && upper < size) {
      taps[j].upper = int32_t(upper);
      taps[j].w_upper = weights[2 * j + 1];
    }
  }
  return {taps, size, out};
}

template <typename T>
struct CropTaps {
  AxisTaps<T> rows, columns;
  bool finite;  // otherwise the crop is NaN, and sends nothing to its image
};

template <typename T>
CropTaps<T> crop_taps(Arena& arena, const WindowSpec<T>& windows, const CropShape& s, int64_t n) {
  const Window<T> window = load_window(windows, n);
  return {axis_taps(arena, y_axis(windows, window, s)), axis_taps(arena, x_axis(windows, window, s)),
          is_finite(window)};
}

template <typename T>
CropTaps<T> crop_taps(Arena& arena, const TapTables<T>& tables, const CropShape& s, int64_t n) {
  return {axis_taps(arena, tables.rows, n, s.height, s.out_height),
          axis_taps(arena, tables.columns, n, s.width, s.out_width), true};
}

}  // namespace racnn::cpu::RACNN_ISA
