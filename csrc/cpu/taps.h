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

template <template <typename> typename Axis, typename T>
AxisTaps<T> axis_taps(Arena& arena, const Axis<T>& axis) {
  Tap<T>* taps = arena.take<Tap<T>>(axis.out);
  for (int32_t j = 0; j < axis.out; ++j) taps[j] = make_tap(axis, j);
  return {taps, axis.size, axis.out};
}

template <typename Axis>
struct CropTaps {
  Axis rows, columns;
  bool finite;  // as CropAxes'
};

template <typename Taps>
auto crop_taps(Arena& arena, const Taps& taps, const CropShape& s, int64_t n) {
  const auto axes = crop_axes(taps, s, n);
  return CropTaps{axis_taps(arena, axes.y), axis_taps(arena, axes.x), axes.finite};
}

}  // namespace racnn::cpu::RACNN_ISA
