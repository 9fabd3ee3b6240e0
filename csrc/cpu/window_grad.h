// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d window = sum over c, i, j of g[c, i, j] * d out[c, i, j] / d (tx, ty, tw, th), exactly.
//
// From the rows that an output row reads one line is made by their weights, and one or two by their
// derivatives; along x the first is contracted by the columns' derivatives, the others by their weights.
// Two-entry taps without a mask have slopes -1 and +1, the same for centre and half side but for a factor,
// which is applied once a row and once a column. Long runs go by cells (run_window_grad.h).
#pragma once

#include "lines.h"
#include "run_window_grad.h"

namespace racnn::cpu::RACNN_ISA {

// Sums by the window's numbers, lane by lane.
template <typename T>
struct LaneSums {
  Register<T> x, half_x, y, half_y;

  void add(const LaneSums& row, const AxisGrad<T>* factor) {
    x += row.x;
    half_x += row.half_x;
    y += factor == nullptr ? row.y : row.y * factor->centre;
    half_y += factor == nullptr ? row.half_y : row.y * factor->half;
  }

  Window<T> total() const {
    return {sum_of_lanes<T>(x), sum_of_lanes<T>(half_x), sum_of_lanes<T>(y), sum_of_lanes<T>(half_y)};
  }
};

// What the columns contribute, as tables of lanes (band.h).
template <typename T>
struct ColumnLanes {
  const T* sets[AxisRuns<T>::kMostSets];
  const T* centre;  // of slopes: their factors
  const T* half;
  const T* taken;  // all bits of lanes with an output, none of others
};

template <typename T>
ColumnLanes<T> make_column_lanes(Arena& arena, const Band<T>& band, const Columns<T>& columns) {
  ColumnLanes<T> lanes{};
  const AxisRuns<T>& axis = columns.axis;
  const T all = std::bit_cast<T>(std::conditional_t<sizeof(T) == 4, int32_t, int64_t>(-1));
  lanes.taken = make_lanes<T>(arena, band, 1, [&](int64_t, int64_t) { return all; });
  for (int s = 0; s < axis.sets; ++s) {
    lanes.sets[s] = make_lanes<T>(arena, band, columns.taps,
                                  [&](int64_t t, int64_t j) { return columns.weight(s, j, t); });
  }
  if (axis.factors != nullptr) {
    lanes.centre = make_lanes<T>(arena, band, 1, [&](int64_t, int64_t j) { return axis.factors[j].centre; });
    lanes.half = make_lanes<T>(arena, band, 1, [&](int64_t, int64_t j) { return axis.factors[j].half; });
  }
  return lanes;
}

// One output row: its gradient g times its outputs' derivatives.
template <typename Kind, int kSets, typename Grad, typename T>
RACNN_NOINLINE LaneSums<T> row_by_band(const Band<T>& band, const LineSet<T, kSets>& lines,
                                       const ColumnLanes<T>& columns, const Grad* g) {
  LaneSums<T> sums{};
  for (int64_t b = 0; b < band.blocks; ++b) {
    const Register<T> taken = load_register(columns.taken + b * Band<T>::kLanes);
    const Register<T> grad = both(load_register_as<T>(g + band.begin[b]), taken);
    Register<T> by_x[kSets - 1];
    Register<T> by_y[1];
    if constexpr (kSets == 2) {
      contract_block<Kind::taps, Kind::two, 1>(band, b, lines[0], {columns.sets[1]}, by_x);
      const Register<T> moved = grad * by_x[0];
      sums.x += moved * load_register(columns.centre + b * Band<T>::kLanes);
      sums.half_x += moved * load_register(columns.half + b * Band<T>::kLanes);
    } else {
      contract_block<Kind::taps, Kind::two, 2>(band, b, lines[0], {columns.sets[1], columns.sets[2]}, by_x);
      sums.x += grad * by_x[0];
      sums.half_x += grad * by_x[1];
      contract_block<Kind::taps, Kind::two, 1>(band, b, lines[2], {columns.sets[0]}, by_y);
      sums.half_y += grad * by_y[0];
    }
    contract_block<Kind::taps, Kind::two, 1>(band, b, lines[1], {columns.sets[0]}, by_y);
    sums.y += grad * by_y[0];
  }
  return sums;
}

// The same run by run: of wide pixels, and where pixels of weight 0 must not be touched. `room` takes a
// pixel.
template <int kSets, typename Grad, typename T>
LaneSums<T> row_by_runs(const Columns<T>& columns, int64_t step, const LineSet<T, kSets>& lines,
                        const Grad* g, T* room) {
  LaneSums<T> sums{};
  const auto times_grad = [&](int32_t j, int line, int set) {
    const T* from = lines[line] + (columns.first[j] + columns.before[j]) * step;
    blend<1>(from, step, columns.axis.runs[j].count, {columns.axis.set(j, set)}, {room}, step);
    Register<T> sum{};
    int64_t e = 0;
    for (; e + kRegisterLanes<T> <= step; e += kRegisterLanes<T>) {
      sum += load_register_as<T>(g + j * step + e) * load_register(room + e);
    }
    for (; e < step; ++e) sum[0] += T(widen(g[j * step + e])) * room[e];
    return sum;
  };
  for (int32_t j = 0; j < columns.axis.out; ++j) {
    const Register<T> by_x = times_grad(j, 0, 1);
    if constexpr (kSets == 2) {
      sums.x += by_x * columns.axis.factors[j].centre;
      sums.half_x += by_x * columns.axis.factors[j].half;
    } else {
      sums.x += by_x;
      sums.half_x += times_grad(j, 0, 2);
      sums.half_y += times_grad(j, 2, 0);
    }
    sums.y += times_grad(j, 1, 0);
  }
  return sums;
}

template <int kSets, typename Image, typename Grad, typename Taps, typename T>
void window_grad_by_band(const WindowGradProblem<Image, Grad, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                         const Units& units, int64_t begin, int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item(), step = layout.step;
  const Columns<T> columns = make_columns(arena, runs.columns, p.image_strides, step);
  const bool wide = step >= kWidePixel;
  const Band<T> band =
      wide ? Band<T>{} : make_band<T>(arena, columns.first, p.shape.out_width, step, columns.taps);
  const ColumnLanes<T> lanes = make_column_lanes(arena, band, columns);
  LineMaker<Image, T, kSets> lines(arena, rows_of(p.images, p.image_strides, p.shape, false, step),
                                   columns.line, runs.rows.longest, p.affine);
  GradLines<Grad> grads(arena, rows_of(p.grad_output, p.grad_strides, p.shape, true, step), p.shape.out_width,
                        greater(band.covered(), p.shape.out_width * step));
  T* const room = arena.take<T>(step);
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  const Grad* grad = p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    LaneSums<T> sums{};
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      lines.start_plane(plane);
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
        const Run& run = runs.rows.runs[i];
        if (run.count == 0) continue;
        const T* weights[kSets];
        T weight_sums[kSets];
        for (int s = 0; s < kSets; ++s) {
          weights[s] = runs.rows.set(i, s);
          weight_sums[s] = runs.rows.sums[s][i];
        }
        lines.make(image + plane * p.image_strides.c + run.first * p.image_strides.y, run.count, weights,
                   weight_sums, rows_ahead(units, runs.rows, image, p.image_strides, plane, i));
        const Grad* const g = grads.line(grad + plane * p.grad_strides.c + i * p.grad_strides.y);
        const AxisGrad<T>* const factor = kSets == 2 ? runs.rows.factors + i : nullptr;
        if (wide || (columns.uneven && !lines.all_finite())) {
          sums.add(row_by_runs<kSets>(columns, step, lines.lines(), g, room), factor);
          continue;
        }
        with_kind(band, [&](auto kind) {
          sums.add(row_by_band<decltype(kind), kSets>(band, lines.lines(), lanes, g), factor);
        });
      }
    }
    p.workspace[begin] = sums.total();
  }
}

template <typename Image, typename Grad, typename Taps>
void compute(const WindowGradProblem<Image, Grad, Taps>& p, const Units& units, int64_t begin, int64_t end) {
  // No weight of theirs moves with the window, and a gradient that is not finite has no part in the sums.
  bool still = false;
  if constexpr (requires { p.taps.interpolation; }) {
    still = p.taps.interpolation == Interpolation::kNearest && !(p.taps.steepness > 0);
  }
  Arena arena;
  const auto runs = crop_runs<true>(arena, p.taps, p.shape, begin / units.per_item());
  if (still || !runs.finite) {
    for (; begin < end; ++begin) p.workspace[begin] = {};
  } else if (runs.rows.sets == 3 && prefers_cells(runs.columns)) {
    window_grad_by_cells(p, runs, arena, units, begin, end);
  } else if (runs.rows.sets == 2) {
    window_grad_by_band<2>(p, runs, arena, units, begin, end);
  } else {
    window_grad_by_band<3>(p, runs, arena, units, begin, end);
  }
}

}  // namespace racnn::cpu::RACNN_ISA
