// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d window = sum over c, i, j of g[c, i, j] * d out[c, i, j] / d (tx, ty, tw, th), exactly.
//
// Along y the derivative goes into the row's two weights, along x into the lines. Without a mask the weights'
// derivatives are -1 and +1 times d p_j / d t: one difference line serves both numbers of the x axis, and the
// factor is applied once per column, at the end. With a mask they differ: two derivative lines.
#pragma once

#include "lines.h"

namespace racnn::cpu::RACNN_ISA {

template <typename T, bool kMask>
struct WindowGradTables {
  static constexpr int kSets = kMask ? 3 : 2;  // the value, then d/dx or d/d centre and d/d half

  Arena arena;
  LineMap<T, kSets> map;
  AxisTaps<T> row_taps;
  TapGrad<T>* row_grads;      // [h]: without a mask only d weight / d position, as `centre`
  AxisGrad<T>* row_position;  // [h]: d p_i / d (centre, half)
  AxisGrad<T>* position;      // [w]: d p_j / d (centre, half); without a mask
  T* column_sums[kSets - 1];  // [size]: sum over rows of g * (derivative line at the row)

  WindowGradTables(const Axis<T>& x, const Axis<T>& y, int64_t step)
      : map(make_line_map<T, kSets>(arena, axis_taps(arena, x), step)), row_taps(axis_taps(arena, y)) {
    position = arena.take<AxisGrad<T>>(x.out);
    for (int32_t j = 0; j < x.out; ++j) set_column(x, j);
    finish_line_map(arena, map);
    for (T*& line : column_sums) line = arena.take<T>(map.size() + kLanes);
    row_grads = arena.take<TapGrad<T>>(y.out);
    row_position = arena.take<AxisGrad<T>>(y.out);
    for (int32_t i = 0; i < y.out; ++i) set_row(y, i);
  }

  void set_row(const Axis<T>& y, int32_t i) {
    row_position[i] = position_grad(y, i);
    row_grads[i] =
        kMask ? make_tap_grad(y, i)
              : TapGrad<T>{slope_of(row_taps[i].lower, T(-1)), slope_of(row_taps[i].upper, T(1)), T(0), T(0)};
  }

  static T slope_of(int32_t pixel, T slope) { return pixel == kOutside ? T(0) : slope; }

  void set_column(const Axis<T>& x, int32_t j) {
    if constexpr (kMask) {
      const TapGrad<T> grad = make_tap_grad(x, j);
      map.sets[1].set(j, grad.centre_lower, grad.centre_upper);
      map.sets[2].set(j, grad.half_lower, grad.half_upper);
    } else {
      position[j] = position_grad(x, j);
      map.sets[1].set(j, slope_of(map.lower[j], T(-1)), slope_of(map.upper[j], T(1)));
    }
  }

  void start_unit() {
    for (T* line : column_sums) {
      for (int64_t e = 0; e < map.size() + kLanes; ++e) line[e] = T(0);
    }
  }

  // What the columns collected, as d/d centre and d/d half of the x axis.
  void add_columns(Window<T>& sums) const {
    const int64_t step = map.step;
    for (int64_t j = 0; j < map.pixels; ++j) {
      T first = T(0), second = T(0);
      for (int64_t c = 0; c < step; ++c) first += column_sums[0][j * step + c];
      if constexpr (kMask) {
        for (int64_t c = 0; c < step; ++c) second += column_sums[1][j * step + c];
        sums.x += first;
        sums.half_x += second;
      } else {
        sums.x += first * position[j].centre;
        sums.half_x += first * position[j].half;
      }
    }
  }
};

// One output row: adds to the columns' sums and to those of the y axis.
template <typename T, bool kMask, typename Rows>
void accumulate_row(WindowGradTables<T, kMask>& tables, const Rows& rows, int32_t i, const T* g,
                    Window<T>& sums) {
  constexpr int kDerivatives = WindowGradTables<T, kMask>::kSets - 1;
  const Tap<T>& tap = tables.row_taps[i];
  const TapGrad<T>& grad = tables.row_grads[i];
  const Vec<T> w_lower = splat<T>(tap.w_lower), w_upper = splat<T>(tap.w_upper);
  const Vec<T> c_lower = splat<T>(grad.centre_lower), c_upper = splat<T>(grad.centre_upper);
  const Vec<T> h_lower = splat<T>(grad.half_lower), h_upper = splat<T>(grad.half_upper);
  Vec<T> centre{}, half{};
  for (int64_t e = 0; e < tables.map.size(); e += kLanes) {
    const Vec<T> grad_out = load(g + e);
    const Vec<T> lower = load(rows.lower[0] + e), upper = load(rows.upper[0] + e);
    centre += grad_out * (c_lower * lower + c_upper * upper);
    if constexpr (kMask) half += grad_out * (h_lower * lower + h_upper * upper);
    for (int d = 0; d < kDerivatives; ++d) {
      const Vec<T> slope = w_lower * load(rows.lower[d + 1] + e) + w_upper * load(rows.upper[d + 1] + e);
      store(tables.column_sums[d] + e, load(tables.column_sums[d] + e) + grad_out * slope);
    }
  }
  if constexpr (kMask) {
    sums.y += sum<T>(centre);
    sums.half_y += sum<T>(half);
  } else {
    const T difference = sum<T>(centre);
    sums.y += difference * tables.row_position[i].centre;
    sums.half_y += difference * tables.row_position[i].half;
  }
}

template <bool kMask, typename Image, typename Grad>
void window_grad_of_crop(const WindowGradProblem<Image, Grad>& p, const Units& units, int64_t begin,
                         int64_t end) {
  using T = Accumulate<Image>;
  const int64_t n = begin / units.per_item();
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const CropAxes<Axis<T>> axes = crop_axes(p.taps, p.shape, n);
  WindowGradTables<T, kMask> tables(axes.x, axes.y, layout.step);
  RollingLines<Image, T, WindowGradTables<T, kMask>::kSets> lines(tables.arena, tables.map, p.image_strides,
                                                                  p.affine);
  T* buffer = tables.arena.template take<T>(tables.map.size() + kLanes);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    Window<T> sums{};
    tables.start_unit();
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      const Image* image = p.images + n / p.shape.windows * p.image_strides.b + plane * p.image_strides.c;
      lines.start_plane(image, plane);
      const Grad* grad =
          p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows) + plane * p.grad_strides.c;
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
        const Tap<T>& tap = tables.row_taps[i];
        if (tap.lower == kOutside && tap.upper == kOutside) continue;
        const Ahead ahead = rows_ahead(unit, plane, i);
        lines.announce(image + ahead.planes * p.image_strides.c, tables.row_taps[ahead.row].upper);
        prefetch(grad + ahead.planes * p.grad_strides.c + ahead.row * p.grad_strides.y,
                 tables.map.size() * int64_t(sizeof(Grad)));
        const T* g =
            padded_grad_line(grad + i * p.grad_strides.y, p.grad_strides, layout, p.shape.out_width, buffer);
        accumulate_row(tables, lines.fetch(tap.lower, tap.upper), i, g, sums);
      }
    }
    tables.add_columns(sums);
    p.workspace[begin] = sums;
  }
}

template <typename Image, typename Grad>
void compute(const WindowGradProblem<Image, Grad>& p, const Units& units, int64_t begin, int64_t end) {
  p.taps.steepness > 0 ? window_grad_of_crop<true>(p, units, begin, end)
                       : window_grad_of_crop<false>(p, units, begin, end);
}

}  // namespace racnn::cpu::RACNN_ISA
