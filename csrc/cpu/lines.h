// SPDX-License-Identifier: BSD-3-Clause
//
// From rows of an image to one line of accumulation type, the vertical half of a crop; and the columns of a
// crop as they find their pixels in it. Of an image in the usual layouts a line is a piece of the row between
// zeros; where pixels are far apart it is a list of those that are read.
#pragma once

#include "band.h"
#include "blend.h"
#include "runs.h"
#include "units.h"

namespace racnn::cpu::RACNN_ISA {

// A tensor's rows as the kernels read them.
template <typename From>
struct Rows {
  Strides strides;
  int64_t step;     // numbers a pixel in a line
  const From* end;  // behind the last number: whole registers are read up to here
};

// Images [B, C, H, W] or gradients of crops [B, K, C, h, w] of these sizes.
template <typename From>
Rows<From> rows_of(const From* tensor, const Strides& s, const CropShape& shape, bool crops, int64_t step) {
  const int64_t height = crops ? shape.out_height : shape.height;
  const int64_t width = crops ? shape.out_width : shape.width;
  const int64_t last = (shape.batch - 1) * s.b + (crops ? shape.windows - 1 : 0) * s.k +
                       (shape.channels - 1) * s.c + (height - 1) * s.y + (width - 1) * s.x;
  return {s, step, tensor + last + 1};
}

struct LineShape {
  int64_t first;           // pixel of the row with which it begins
  int64_t numbers, zeros;  // that it holds, and that lie on both sides of them
  int64_t* offsets;        // [numbers]: where each lies in a row, -1: it is 0. Null: one behind the other

  int64_t padded(int64_t lanes) const { return (numbers + lanes - 1) / lanes * lanes; }
};

// `pixels` pixels from `first` on, between `zeros` pixels that are 0.
inline LineShape piece_of_row(Arena& arena, int64_t first, int64_t pixels, int64_t zeros, const Strides& s,
                              int64_t step) {
  LineShape line{first, pixels * step, zeros * step, nullptr};
  if (step > 1 ? s.x == step && s.c == 1 : s.x == 1) return line;
  line.offsets = arena.take<int64_t>(line.numbers);
  for (int64_t e = 0; e < line.numbers; ++e) line.offsets[e] = (first + e / step) * s.x + e % step * s.c;
  return line;
}

// A crop's columns in the lines of its image.
template <typename T>
struct Columns {
  const AxisRuns<T>& axis;
  LineShape line;
  int64_t taps;     // entries of the longest run
  int32_t* first;   // [out]: first of `taps` pixels of the line that an output reads
  int32_t* before;  // [out]: of these, how many lie before its run
  bool uneven;      // some read pixels that are not theirs, with the weight 0

  // The weight of output j for the t-th of its pixels.
  T weight(int s, int64_t j, int64_t t) const {
    const int64_t k = t - before[j];
    return k >= 0 && k < axis.runs[j].count ? axis.set(int32_t(j), s)[k] : T(0);
  }
};

// Beyond so many numbers of a row for one that is read, these are listed.
constexpr int64_t kSparse = 8;

template <typename T>
Columns<T> make_columns(Arena& arena, const AxisRuns<T>& axis, const Strides& images, int64_t step) {
  int32_t first = axis.size, end = 0;
  for (int32_t j = 0; j < axis.out; ++j) {
    const Run& run = axis.runs[j];
    if (run.count == 0) continue;
    first = lesser(first, run.first);
    end = greater(end, run.first + run.count);
  }
  const int64_t taps = greater(axis.longest, 1), pixels = greater(end - first, 0);
  Columns<T> columns{axis, {}, taps, arena.take<int32_t>(axis.out), arena.take<int32_t>(axis.out), false};
  if (pixels > kSparse * taps * axis.out) {
    columns.line = {0, axis.out * taps * step, 0, arena.take<int64_t>(axis.out * taps * step)};
    for (int64_t e = 0; e < columns.line.numbers; ++e) {
      const int64_t j = e / step / taps, k = e / step % taps;
      const Run& run = axis.runs[j];
      columns.line.offsets[e] = k < run.count ? (run.first + k) * images.x + e % step * images.c : -1;
    }
    for (int32_t j = 0; j < axis.out; ++j) {
      columns.first[j] = int32_t(j * taps);
      columns.before[j] = 0;
    }
    return columns;
  }
  columns.line = piece_of_row(arena, first, pixels, taps, images, step);
  for (int32_t j = 0; j < axis.out; ++j) {
    const Run& run = axis.runs[j];
    // Short runs at an edge of the image are among the zeros beyond it.
    const bool at_begin = run.first == 0 && run.count < taps;
    columns.before[j] = at_begin ? int32_t(taps) - run.count : 0;
    columns.first[j] = run.count == 0 ? -int32_t(taps) : run.first - columns.before[j] - first;
    columns.uneven |= run.count > 0 && !at_begin && run.count < taps && run.first + taps <= axis.size;
  }
  return columns;
}

// The image rows that the output row kRowsAhead after row i of `plane` reads first; `image` is plane 0.
template <typename From, typename T>
RACNN_INLINE RowsAhead<From> rows_ahead(const Units& units, const AxisRuns<T>& rows, const From* image,
                                        const Strides& s, int64_t plane, int32_t i) {
  const bool next = i + kRowsAhead >= units.rows;
  const int64_t at = i + kRowsAhead - (next ? units.rows : 0);
  if ((next && plane + 1 == units.planes) || at >= units.rows) return {};
  const Run& run = rows.runs[at];
  int32_t first = run.first;
  const int32_t end = run.first + run.count;
  if (at > 0) first = greater(first, rows.runs[at - 1].first + rows.runs[at - 1].count);
  return {image + (plane + next) * s.c + first * s.y, greater(end - first, 0)};
}

template <typename T, int kSets>
using LineSet = T* [kSets];

// Makes the lines of one crop: kSets at a time, each by its own weights of the rows.
template <typename From, typename T, int kSets>
class LineMaker {
 public:
  static constexpr int64_t kLanes = kRegisterLanes<T>;

  LineMaker(Arena& arena, const Rows<From>& rows, const LineShape& shape, int32_t longest,
            const ChannelAffine& affine)
      : rows_(rows), shape_(shape), affine_(affine), padded_(shape.padded(kLanes)) {
    const int64_t before = (shape.zeros + kLanes - 1) / kLanes * kLanes;
    for (T*& line : lines_) line = zeros(arena, before + padded_ + shape.zeros + 3 * kLanes) + before;
    if (affine.scale != nullptr) {
      scale_ = zeros(arena, padded_);
      shift_ = zeros(arena, padded_);
    }
    copy_ = arena.take<From>(int64_t(longest) * padded_);
    for (int64_t e = 0; e < longest * padded_; ++e) copy_[e] = From{};
  }

  const LineSet<T, kSets>& lines() const { return lines_; }

  bool all_finite() const {
    bool all = true;
    for (const T* line : lines_) all = all && racnn::cpu::RACNN_ISA::all_finite(line, shape_.numbers);
    return all;
  }

  void start_plane(int64_t channel) {
    if (affine_.scale == nullptr) return;
    for (int64_t e = 0; e < shape_.numbers; ++e) {
      if (shape_.offsets != nullptr && shape_.offsets[e] < 0) continue;
      scale_[e] = T(affine_.scale[channel + e % rows_.step]);
      shift_[e] = T(affine_.shift[channel + e % rows_.step]);
    }
  }

  // `row` is pixel 0 of the first of `count` rows; sums[s] are those of weights[s]. `ahead`: pixel 0, too.
  void make(const From* row, int64_t count, const T* const (&weights)[kSets], const T (&sums)[kSets],
            RowsAhead<From> ahead = {}) {
    LineAffine<T, kSets> affine{scale_, shift_};
    for (int s = 0; s < kSets; ++s) affine.weights[s] = sums[s];
    const From* from = row + shape_.first * rows_.strides.x;
    int64_t stride = rows_.strides.y;
    if (shape_.offsets != nullptr || from + (count - 1) * stride + padded_ > rows_.end) {
      for (int64_t k = 0; k < count; ++k) copy(row + k * stride, copy_ + k * padded_);
      from = copy_;
      stride = padded_;
      ahead.count = 0;
    }
    ahead.from += shape_.first * rows_.strides.x;
    blend_whole<kSets>(from, stride, count, weights, lines_, padded_, affine, ahead);
    for (T* line : lines_) store_register(line + shape_.numbers, Register<T>{});  // what came with the last
  }

 private:
  static T* zeros(Arena& arena, int64_t count) {
    T* numbers = arena.take<T>(count);
    for (int64_t e = 0; e < count; ++e) numbers[e] = T(0);
    return numbers;
  }

  void copy(const From* row, From* to) const {
    if (shape_.offsets == nullptr) {
      std::memcpy(to, row + shape_.first * rows_.strides.x, size_t(shape_.numbers) * sizeof(From));
      return;
    }
    for (int64_t e = 0; e < shape_.numbers; ++e) {
      const int64_t offset = shape_.offsets[e];
      to[e] = offset < 0 ? From{} : row[offset];
    }
  }

  Rows<From> rows_;
  LineShape shape_;
  ChannelAffine affine_;
  int64_t padded_;
  LineSet<T, kSets> lines_;
  T* scale_ = nullptr;
  T* shift_ = nullptr;
  From* copy_ = nullptr;
};

// `n` pixels of `step` numbers each, as accumulation type: where they lie, or copied into `buffer`.
template <typename From, typename T>
const T* line_of(const From* from, int64_t pixel_stride, int64_t channel_stride, int64_t n, int64_t step,
                 T* buffer) {
  if (step == 1 || (channel_stride == 1 && pixel_stride == step)) {
    const int64_t stride = step == 1 ? pixel_stride : 1;
    if constexpr (std::is_same_v<From, T>) {
      if (stride == 1) return from;
    }
    widen_line(from, stride, n * step, buffer);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < step; ++c) {
        buffer[i * step + c] = widen(from[i * pixel_stride + c * channel_stride]);
      }
    }
  }
  return buffer;
}

// Lines of a gradient where they lie, or copied where their numbers are far apart or near the tensor's end:
// whole registers of them are read.
template <typename Grad>
class GradLines {
 public:
  GradLines(Arena& arena, const Rows<Grad>& rows, int64_t pixels, int64_t read)
      : rows_(rows), shape_(piece_of_row(arena, 0, pixels, 0, rows.strides, rows.step)), read_(read) {
    copy_ = arena.take<Grad>(read);
    for (int64_t e = 0; e < read; ++e) copy_[e] = Grad{};
  }

  const Grad* line(const Grad* row) const {
    if (shape_.offsets == nullptr && row + read_ <= rows_.end) return row;
    for (int64_t e = 0; e < shape_.numbers; ++e) {
      copy_[e] = row[shape_.offsets == nullptr ? e : shape_.offsets[e]];
    }
    return copy_;
  }

 private:
  Rows<Grad> rows_;
  LineShape shape_;
  int64_t read_;
  Grad* copy_;
};

}  // namespace racnn::cpu::RACNN_ISA
