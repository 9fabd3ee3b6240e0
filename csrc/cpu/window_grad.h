// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d window = sum over c, i, j of g[c, i, j] * d out[c, i, j] / d (tx, ty, tw, th), exactly.
//
// From the rows that an output row reads one line is made by their weights, and one or two by their
// derivatives; along x the first is contracted by the columns' derivatives, the others by their weights.
// Two-entry taps without a mask have slopes -1 and +1, the same for centre and half side but for a factor,
// which is applied once a row and once a column. Long runs go by cells (run_window_grad.h).
#pragma once

#include "channel_window_grad.h"
#include "lines.h"
#include "run_window_grad.h"

namespace racnn::cpu::RACNN_ISA {

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
  const auto of_pixels = [&](const auto& value) {
    return make_lanes<T>(arena, band, 1, [&](int64_t, int64_t pixel) { return value(pixel); });
  };
  lanes.taken = of_pixels([&](int64_t) { return all; });
  for (int s = 0; s < axis.sets; ++s) {
    lanes.sets[s] = make_lanes<T>(arena, band, columns.taps,
                                  [&](int64_t t, int64_t pixel) { return columns.weight(s, pixel, t); });
  }
  if (axis.factors == nullptr) return lanes;
  lanes.centre = of_pixels([&](int64_t pixel) { return axis.factors[pixel].centre; });
  lanes.half = of_pixels([&](int64_t pixel) { return axis.factors[pixel].half; });
  return lanes;
}

// One output row: the gradient g times the outputs' derivatives.
template <typename Kind, int kSets, typename Source, typename Grad, typename T>
RACNN_INLINE LaneSums<T> row_by_band(const Band<T>& band, const Source (&lines)[kSets],
                                     const ColumnLanes<T>& columns, const Grad* g) {
  constexpr int64_t kOne = Band<T>::kLanes;
  LaneSums<T> sums{};
  for (int64_t b = 0; b < band.blocks; ++b) {
    const int32_t* const index = band.index + b * kOne;
    const int64_t base = band.base[b], table = b * kOne * (Kind::taps > 0 ? Kind::taps : band.taps);
    const Register<T> taken = load_register(columns.taken + b * kOne);
    const Register<T> grad = both(load_register_as<T>(g + band.begin[b]), taken);
    Register<T> by_x[kSets - 1];
    Register<T> by_y[1];
    if constexpr (kSets == 2) {
      contract_block<Kind, 1>(band, lines[0], base, index, {columns.sets[1] + table}, by_x);
      const Register<T> moved = grad * by_x[0];
      sums.x += moved * load_register(columns.centre + b * kOne);
      sums.half_x += moved * load_register(columns.half + b * kOne);
    } else {
      contract_block<Kind, 2>(band, lines[0], base, index, {columns.sets[1] + table, columns.sets[2] + table},
                              by_x);
      sums.x += grad * by_x[0];
      sums.half_x += grad * by_x[1];
      contract_block<Kind, 1>(band, lines[2], base, index, {columns.sets[0] + table}, by_y);
      sums.half_y += grad * by_y[0];
    }
    contract_block<Kind, 1>(band, lines[1], base, index, {columns.sets[0] + table}, by_y);
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

// One crop by a band, or by runs where no band will do.
template <int kSets, typename Image, typename Grad, typename T>
class BandWindowGrad {
 public:
  template <typename Taps>
  BandWindowGrad(Arena& arena, const WindowGradProblem<Image, Grad, Taps>& p, const CropRuns<T>& runs,
                 int64_t step)
      : step_(step),
        columns_(make_columns(arena, runs.columns, p.image_strides, step)),
        factors_(runs.rows.factors),
        plans_(make_row_plans(arena, runs.rows, p.image_strides.y)),
        lines_(arena, rows_of(p.images, p.image_strides, p.shape, false, step), columns_.line,
               runs.rows.longest, p.affine),
        band_(step >= kWidePixel ? Band<T>{}
                                 : make_band<T>(arena, columns_.first, p.shape.out_width, step, columns_.taps,
                                                columns_.blends ? BlendedRows<Image, T>::kLoad : 0)),
        lanes_(make_column_lanes(arena, band_, columns_)),
        grads_(arena, rows_of(p.grad_output, p.grad_strides, p.shape, true, step), p.shape.out_width,
               greater(band_.covered(), p.shape.out_width * step)),
        room_(arena.take<T>(step)) {}

  // The rows [begin, end) of one plane, from its image's pixel 0 and its gradient's; `next`: whether another
  // plane follows.
  void rows(int32_t begin, int32_t end, const Image* plane, int64_t number, bool next, const Grad* grad,
            LaneSums<T>& sums) {
    lines_.start_plane(plane, number, next);
    if (step_ < kWidePixel) {
      return with_kind(band_, [&](auto kind) { rows_by_band<decltype(kind)>(begin, end, grad, sums); });
    }
    for (int32_t i = begin; i < end; ++i) {
      if (plans_[i].count == 0) continue;
      lines_.make(plans_[i]);
      add_row_by_runs(i, grads_.line(grad, i), sums);
    }
  }

 private:
  using Lines = LineMaker<Image, T, kSets>;

  template <typename Kind>
  RACNN_NOINLINE void rows_by_band(int32_t begin, int32_t end, const Grad* grad, LaneSums<T>& sums) {
    const Band<T> band = band_;  // copies that no store can change: they stay in registers
    const ColumnLanes<T> lanes = lanes_;
    const bool blends = columns_.blends;
    LaneSums<T> total = sums;
    for (int32_t i = begin; i < end; ++i) {
      if (plans_[i].count == 0) continue;
      const Grad* const g = grads_.line(grad, i);
      grads_.fetch_ahead(grad, i);
      if constexpr (kSets == 2 && kMayBlend<Kind, T>) {
        if (blends && lines_.in_place(plans_[i])) {
          lines_.fetch_ahead(plans_[i]);
          const BlendedRows<Image, T> rows[kSets] = {lines_.rows(plans_[i], 0), lines_.rows(plans_[i], 1)};
          total.add(row_by_band<Kind>(band, rows, lanes, g), factor(i));
          continue;
        }
      }
      lines_.make(plans_[i]);
      Line<T> lines[kSets];
      for (int s = 0; s < kSets; ++s) lines[s].from = lines_.lines()[s];
      if (columns_.uneven && !lines_.all_finite()) {
        add_row_by_runs(i, g, total);
      } else {
        total.add(row_by_band<Kind>(band, lines, lanes, g), factor(i));
      }
    }
    sums = total;
  }

  RACNN_NOINLINE void add_row_by_runs(int32_t i, const Grad* g, LaneSums<T>& sums) {
    sums.add(row_by_runs<kSets>(columns_, step_, lines_.lines(), g, room_), factor(i));
  }

  const AxisGrad<T>* factor(int32_t i) const { return kSets == 2 ? factors_ + i : nullptr; }

  int64_t step_;
  Columns<T> columns_;
  const AxisGrad<T>* factors_;  // of the rows
  const RowPlan<T>* plans_;
  Lines lines_;
  Band<T> band_;
  ColumnLanes<T> lanes_;
  GradLines<Grad> grads_;
  T* room_;
};

template <int kSets, typename Image, typename Grad, typename Taps, typename T>
void window_grad_by_band(const WindowGradProblem<Image, Grad, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                         const Units& units, int64_t begin, int64_t end) {
  const int64_t n = begin / units.per_item();
  BandWindowGrad<kSets, Image, Grad, T> crop(arena, p, runs,
                                             plane_layout(p.shape.channels, p.image_strides).step);
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  const Grad* grad = p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    LaneSums<T> sums{};
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      crop.rows(unit.row_begin, unit.row_end, image + plane * p.image_strides.c, plane,
                plane + 1 < units.planes, grad + plane * p.grad_strides.c, sums);
    }
    p.workspace[begin] = sums.total();
  }
}

template <typename Image, typename Grad, typename Taps>
void compute(const WindowGradProblem<Image, Grad, Taps>& p, Arena& arena, const Units& units, int64_t begin,
             int64_t end) {
  if (units.by_channels) return window_grad_of_images(p, arena, units, begin, end);
  const auto runs = crop_runs<true>(arena, p.taps, p.shape, begin / units.per_item());
  if (is_still(p.taps) || !runs.finite) {
    for (; begin < end; ++begin) p.workspace[begin] = {};
  } else if (prefers_channels(runs, p.shape, p.image_strides, units)) {
    window_grad_by_channels(p, runs, arena, units, begin, end);
  } else if (runs.rows.sets == 3 && prefers_cells(runs.columns)) {
    window_grad_by_cells(p, runs, arena, units, begin, end);
  } else if (runs.rows.sets == 2) {
    window_grad_by_band<2>(p, runs, arena, units, begin, end);
  } else {
    window_grad_by_band<3>(p, runs, arena, units, begin, end);
  }
}

}  // namespace racnn::cpu::RACNN_ISA
