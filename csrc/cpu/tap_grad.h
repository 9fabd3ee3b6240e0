// SPDX-License-Identifier: BSD-3-Clause
//
// The derivatives of a contraction with tap tables (TapTables in problems.h) by their weights.
#pragma once

#include "lines.h"

namespace racnn::cpu::RACNN_ISA {

// One unit of one crop. The lines: the crop's own, for the rows' sums, and the lower and the upper pixels
// themselves, for the columns'.
template <typename T>
void tap_grad_unit(const TapGradProblem<T>& p, const Unit& unit, T* sums) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = unit.item;
  Arena arena;
  const CropTaps<T> taps = crop_taps(arena, p.taps, p.shape, n);
  LineMap<T, 3> map = make_line_map<T, 3>(arena, taps.columns, layout.step);
  for (int32_t j = 0; j < map.pixels; ++j) {
    map.sets[1].set(j, T(map.lower[j] != kOutside), T(0));
    map.sets[2].set(j, T(0), T(map.upper[j] != kOutside));
  }
  finish_line_map(arena, map);
  RollingLines<T, T, 3> lines(arena, map, p.image_strides, {});
  T* buffer = arena.take<T>(map.size() + kLanes);
  T* column_sums[2];
  for (T*& line : column_sums) {
    line = arena.take<T>(map.size() + kLanes);
    for (int64_t e = 0; e < map.size() + kLanes; ++e) line[e] = T(0);
  }
  for (int64_t e = 0; e < tap_grad_sums(p.shape); ++e) sums[e] = T(0);
  for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
    lines.start_plane(p.images + n / p.shape.windows * p.image_strides.b + plane * p.image_strides.c, plane);
    const T* grad =
        p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows) + plane * p.grad_strides.c;
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
      const T* g =
          padded_grad_line(grad + i * p.grad_strides.y, p.grad_strides, layout, p.shape.out_width, buffer);
      const Tap<T>& tap = taps.rows[i];
      const auto source = lines.fetch(tap.lower, tap.upper);
      const Vec<T> w_lower = splat<T>(tap.w_lower), w_upper = splat<T>(tap.w_upper);
      Vec<T> lower{}, upper{};
      for (int64_t e = 0; e < map.size(); e += kLanes) {
        const Vec<T> grad_out = load(g + e);
        lower += grad_out * load(source.lower[0] + e);
        upper += grad_out * load(source.upper[0] + e);
        for (int t = 0; t < 2; ++t) {
          const Vec<T> pixels =
              w_lower * load(source.lower[1 + t] + e) + w_upper * load(source.upper[1 + t] + e);
          store(column_sums[t] + e, load(column_sums[t] + e) + grad_out * pixels);
        }
      }
      sums[2 * i] += sum<T>(lower);
      sums[2 * i + 1] += sum<T>(upper);
    }
  }
  T* columns_out = sums + 2 * int64_t(p.shape.out_height);
  for (int64_t j = 0; j < map.pixels; ++j) {
    for (int64_t c = 0; c < map.step; ++c) {
      for (int t = 0; t < 2; ++t) columns_out[2 * j + t] += column_sums[t][j * map.step + c];
    }
  }
}

template <typename T>
void compute(const TapGradProblem<T>& p, const Units& units, int64_t begin, int64_t end) {
  for (; begin < end; ++begin) {
    tap_grad_unit(p, units.unit(begin), p.workspace + begin * tap_grad_sums(p.shape));
  }
}

}  // namespace racnn::cpu::RACNN_ISA
