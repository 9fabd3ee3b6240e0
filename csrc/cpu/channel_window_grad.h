// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d window of small crops by groups of channels (channel_cells.h).
#pragma once

#include "channel_cells.h"
#include "lane_sums.h"

namespace racnn::cpu::RACNN_ISA {

// What output row i adds to a window's sums, of cells of the gradient. With slopes two sets, with derivatives
// three.
template <int kSets, typename Cells, typename T>
RACNN_NOINLINE void add_row_of_cells(const CropRuns<T>& runs, const Cells& row, int32_t i, const T* grad,
                                     LaneSums<T>& sums) {
  const AxisRuns<T> columns = runs.columns;
  const Cells cells = row;
  Cell<T> x, half_x, y, half_y;
  for (int32_t j = 0; j < columns.out; ++j, grad += kLanes) {
    const Run run = columns.runs[j];
    if (run.count == 0) continue;
    const Cell<T> g = Cell<T>::load(grad);
    const auto moved = [&](int columns_set, int rows_set) RACNN_INLINED {
      Cell<T> sum = weighted_sum(columns.set(j, columns_set), run.count,
                                 [&](int32_t k) RACNN_INLINED { return cells(rows_set, run.first + k); });
      RACNN_UNROLL
      for (int r = 0; r < kCellRegisters<T>; ++r) sum.part[r] *= g.part[r];
      return sum;
    };
    const Cell<T> by_x = moved(1, 0);
    if constexpr (kSets == 2) {
      x.add(columns.factors[j].centre, by_x);
      half_x.add(columns.factors[j].half, by_x);
    } else {
      x.add(T(1), by_x);
      half_x.add(T(1), moved(2, 0));
      half_y.add(T(1), moved(0, 2));
    }
    y.add(T(1), moved(0, 1));
  }
  const AxisGrad<T>* factor = kSets == 2 ? runs.rows.factors + i : nullptr;
  for (int r = 0; r < kCellRegisters<T>; ++r) {
    sums.add({x.part[r], half_x.part[r], y.part[r], half_y.part[r]}, factor);
  }
}

template <typename Image, typename Grad, typename Taps>
class ChannelWindowGrad {
 public:
  using T = Accumulate<Image>;

  ChannelWindowGrad(Arena& arena, const WindowGradProblem<Image, Grad, Taps>& p, const Turned& turned)
      : p_(p),
        grads_(rows_of(p.grad_output, p.grad_strides, p.shape, true, 1)),
        map_(arena, p, turned),
        cells_(take_cells<T>(arena, int64_t(p.shape.out_height) * p.shape.out_width)) {}

  // Channels [first, first + channels) of an image.
  void turn(const Image* image, int64_t first, int64_t channels) { map_.turn(image, first, channels); }

  // The part of these in the sums of crop n.
  void crop(const CropRuns<T>& runs, int64_t n, LaneSums<T>& sums) {
    turn_crop_in(p_.grad_output, grads_, p_.shape, n, map_.first(), map_.channels(), cells_);
    runs.rows.sets == 2 ? add_rows<2>(runs, sums) : add_rows<3>(runs, sums);
  }

 private:
  template <int kSets>
  void add_rows(const CropRuns<T>& runs, LaneSums<T>& sums) {
    const Range columns = runs.columns.range();
    for (int32_t i = 0; i < p_.shape.out_height; ++i) {
      if (runs.rows.runs[i].count == 0) continue;  // its gradient, be it finite or not, has no part
      const T* const grad = cells_ + int64_t(i) * p_.shape.out_width * kLanes;
      map_.template with_cells<kSets>(
          runs, i, columns, [&](const auto& cells) { add_row_of_cells<kSets>(runs, cells, i, grad, sums); });
    }
  }

  const WindowGradProblem<Image, Grad, Taps>& p_;
  Rows<Grad> grads_;
  MapCells<Image, T> map_;
  T* cells_;  // of one crop's gradient
};

template <typename Image, typename Grad, typename Taps>
void window_grad_of_images(const WindowGradProblem<Image, Grad, Taps>& p, Arena& arena, const Units& units,
                           int64_t begin, int64_t end) {
  const int64_t b = begin / units.per_item();
  const auto image = runs_of_image<true>(arena, p.taps, p.shape, b);
  ChannelWindowGrad<Image, Grad, Taps> crops(arena, p, image.turned);
  int64_t group = 0;
  each_window(
      units, begin, end,
      [&](int64_t first, int64_t channels) {
        group = first / kLanes;
        crops.turn(p.images + b * p.image_strides.b, first, channels);
      },
      [&](int64_t k) {
        const int64_t n = image.numbers[k];
        LaneSums<Accumulate<Image>> sums{};
        if (image.crops[k].finite && !is_still(p.taps)) crops.crop(image.crops[k], n, sums);
        p.workspace[n * units.groups + group] = sums.total();
      });
}

template <typename Image, typename Grad, typename Taps, typename T>
void window_grad_by_channels(const WindowGradProblem<Image, Grad, Taps>& p, const CropRuns<T>& runs,
                             Arena& arena, const Units& units, int64_t begin, int64_t end) {
  const int64_t n = begin / units.per_item();
  ChannelWindowGrad<Image, Grad, Taps> crops(arena, p, turned_for(arena, &runs, 1, p.shape));
  for (; begin < end; ++begin) {
    LaneSums<T> sums{};
    each_group(units.unit(begin), [&](int64_t first, int64_t channels) {
      crops.turn(p.images + n / p.shape.windows * p.image_strides.b, first, channels);
      crops.crop(runs, n, sums);
    });
    p.workspace[begin] = sums.total();
  }
}

}  // namespace racnn::cpu::RACNN_ISA
