// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d image of small maps by groups of channels (channel_cells.h): the windows of an image one after
// the other, each crop's numbers in order. Nobody else writes these channels: no atomics, one fixed order.
#pragma once

#include "channel_cells.h"

namespace racnn::cpu::RACNN_ISA {

// An output row's gradient into the pixels that it reads: `cells` are those of its first row, kRows rows, or
// as many as the run says.
template <int kRows, typename T>
RACNN_NOINLINE void scatter_row(const AxisRuns<T>& axis, const T* row_weights, int32_t count, const T* grad,
                                T* cells, int32_t begin, int64_t pitch) {
  const AxisRuns<T> columns = axis;
  const int32_t rows = kRows > 0 ? kRows : count;
  for (int32_t j = 0; j < columns.out; ++j, grad += kLanes) {
    const Run run = columns.runs[j];
    const T* const weights = columns.weights[j];
    const Cell<T> g = Cell<T>::load(grad);
    for (int32_t t = 0; t < run.count; ++t) {
      Cell<T> part;
      part.add(weights[t], g);
      T* pixel = cells + (run.first + t - begin) * kLanes;
      RACNN_UNROLL
      for (int32_t k = 0; k < rows; ++k, pixel += pitch) {
        Cell<T> sum = Cell<T>::load(pixel);
        sum.add(row_weights[k], part);
        sum.store(pixel);
      }
    }
  }
}

template <typename Grad, typename Image, typename Taps>
class ChannelImageGrad {
 public:
  using T = Accumulate<Image>;

  ChannelImageGrad(Arena& arena, const ImageGradProblem<Grad, Image, Taps>& p, int64_t b)
      : p_(p),
        b_(b),
        grads_(rows_of(p.grad_output, p.grad_strides, p.shape, true, 1)),
        image_(runs_of_image<false>(arena, p.taps, p.shape, b, p.index)),
        pitch_(image_.turned.columns.size() * kLanes),
        cells_(take_cells<T>(arena, image_.turned.size())),
        grad_(take_cells<T>(arena, int64_t(p.shape.out_height) * p.shape.out_width)) {}

  void channels(int64_t first, int64_t channels) {
    const CropShape& s = p_.shape;
    fill_row(T(0), image_.turned.rows.size() * pitch_, cells_);
    for (int64_t k = 0; k < image_.count; ++k) {
      const auto& runs = image_.crops[k];
      if (!runs.finite) continue;
      turn_crop_in(p_.grad_output, grads_, s, image_.numbers[k], first, channels, grad_);
      for (int32_t i = 0; i < s.out_height; ++i) add_row(runs, i);
    }
    scale(first, channels);
    write(p_.grad_images + b_ * p_.image_strides.b + first * p_.image_strides.c, channels);
  }

 private:
  void add_row(const CropRuns<T>& runs, int32_t i) {
    const Run& run = runs.rows.runs[i];
    const T* const grad = grad_ + int64_t(i) * p_.shape.out_width * kLanes;
    T* const to = cells_ + (run.first - image_.turned.rows.begin) * pitch_;
    const auto scatter = run.count == 2 ? scatter_row<2, T> : scatter_row<0, T>;
    scatter(runs.columns, runs.rows.weights[i], run.count, grad, to, image_.turned.columns.begin, pitch_);
  }

  // Of an affine map of the pixels.
  void scale(int64_t first, int64_t channels) {
    if (p_.affine.scale == nullptr) return;
    for (int64_t e = 0; e < image_.turned.rows.size() * pitch_; ++e) {
      cells_[e] *= T(p_.affine.scale[first + lesser<int64_t>(e % kLanes, channels - 1)]);
    }
  }

  // The planes, 0 around what the windows read.
  void write(Image* planes, int64_t channels) const {
    const Strides& s = p_.image_strides;
    const Range &rows = image_.turned.rows, &columns = image_.turned.columns;
    for (int64_t c = 0; c < channels; ++c) {
      for (int32_t y = 0; y < p_.shape.height; ++y) {
        Image* const row = planes + c * s.c + y * s.y;
        const bool read = y >= rows.begin && y < rows.end;
        fill_row(T(0), read ? columns.begin : p_.shape.width, row);
        if (read) fill_row(T(0), p_.shape.width - columns.end, row + columns.end);
      }
    }
    Image* const to = planes + rows.begin * s.y + columns.begin;
    if (columns.size() == p_.shape.width && s.y == columns.size()) {
      return turn_out(static_cast<const T*>(cells_), rows.size() * columns.size(), to, s.c, channels);
    }
    for (int64_t y = 0; y < rows.size(); ++y) {
      turn_out(static_cast<const T*>(cells_ + y * pitch_), columns.size(), to + y * s.y, s.c, channels);
    }
  }

  const ImageGradProblem<Grad, Image, Taps>& p_;
  int64_t b_;
  Rows<Grad> grads_;
  ImageRuns<CropRuns<T>> image_;
  int64_t pitch_;
  T* cells_;  // of the image's gradient
  T* grad_;   // of one crop's
};

template <typename Grad, typename Image, typename Taps>
void image_grad_of_images(const ImageGradProblem<Grad, Image, Taps>& p, Arena& arena, const Units& units,
                          int64_t begin, int64_t end) {
  ChannelImageGrad<Grad, Image, Taps> image(arena, p, begin / units.per_item());
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    image.channels(unit.plane_begin, unit.plane_end - unit.plane_begin);
  }
}

}  // namespace racnn::cpu::RACNN_ISA
