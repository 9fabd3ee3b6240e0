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

// Whether pixels of `step` numbers lie one behind the other.
RACNN_INLINE bool is_dense(const Strides& s, int64_t step) {
  return step > 1 ? s.x == step && s.c == 1 : s.x == 1;
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
  if (is_dense(s, step)) return line;
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

// So many numbers of small crops' lines are made before they are contracted, all rows at once.
constexpr int64_t kLinesTogether = 4096;

// The line pixels that the outputs of `together` rows read first, the lines `pitch` pixels apart.
template <typename T>
const int32_t* first_of_rows(Arena& arena, const Columns<T>& columns, int32_t together, int64_t pitch) {
  if (together == 1) return columns.first;
  const int32_t out = columns.axis.out;
  int32_t* first = arena.take<int32_t>(int64_t(together) * out);
  for (int32_t i = 0; i < together; ++i) {
    for (int32_t j = 0; j < out; ++j) first[i * out + j] = int32_t(i * pitch) + columns.first[j];
  }
  return first;
}

// How many rows are made before they are contracted: all of small crops, whose rows lie one behind the other
// if `dense`.
inline int32_t rows_together(const Units& units, int64_t pitch, int64_t step, bool dense) {
  const bool all = units.chunks == 1 && dense && step < kWidePixel && units.rows * pitch <= kLinesTogether;
  return all ? int32_t(units.rows) : 1;
}

// What an output row reads: `count` rows from `offset` on, from pixel 0 of a plane, by weights[s * count +
// k]; and what will be fetched on the way: the rows that the output row kRowsAhead later reads first, there
// or in the next plane.
template <typename T>
struct RowPlan {
  int64_t offset, ahead_offset;
  int32_t count, ahead_count;
  const T* weights;
  T sums[AxisRuns<T>::kMostSets];
  bool ahead_in_next;
};

template <typename T>
const RowPlan<T>* make_row_plans(Arena& arena, const AxisRuns<T>& rows, int64_t row_stride) {
  RowPlan<T>* plans = arena.take<RowPlan<T>>(rows.out);
  for (int32_t i = 0; i < rows.out; ++i) {
    RowPlan<T>& plan = plans[i];
    plan = {rows.runs[i].first * row_stride, 0, rows.runs[i].count, 0, rows.weights[i], {}, false};
    for (int s = 0; s < rows.sets; ++s) plan.sums[s] = rows.sums[s][i];
    plan.ahead_in_next = i + kRowsAhead >= rows.out;
    const int32_t at = i + kRowsAhead - (plan.ahead_in_next ? rows.out : 0);
    if (at >= rows.out) continue;
    const Run& run = rows.runs[at];
    int32_t first = run.first;
    if (at > 0) first = greater(first, rows.runs[at - 1].first + rows.runs[at - 1].count);
    plan.ahead_offset = first * row_stride;
    plan.ahead_count = greater(run.first + run.count - first, 0);
  }
  return plans;
}

template <typename T, int kSets>
using LineSet = T* [kSets];

// Makes the lines of one crop: kSets at a time, each by its own weights of the rows.
template <typename From, typename T, int kSets>
class LineMaker {
 public:
  static constexpr int64_t kLanes = kRegisterLanes<T>;

  // With room for `together` lines of each set, at `pitch`.
  LineMaker(Arena& arena, const Rows<From>& rows, const LineShape& shape, int32_t longest,
            const ChannelAffine& affine, int32_t together = 1)
      : arena_(arena),
        rows_(rows),
        shape_(shape),
        affine_(affine),
        padded_(shape.padded(kLanes)),
        longest_(lesser<int64_t>(longest, kRowsAtOnce)) {
    const int64_t before = line_zeros(shape), pitch = line_pitch(shape, rows.step);
    for (T*& line : lines_) line = zeros(arena, before + together * pitch) + before;
    if (affine.scale != nullptr) {
      scale_ = zeros(arena, padded_);
      shift_ = zeros(arena, padded_);
    }
  }

  // Numbers from one line to the next: whole pixels.
  static int64_t line_pitch(const LineShape& shape, int64_t step) {
    const int64_t numbers = line_zeros(shape) + shape.padded(kLanes) + shape.zeros + 3 * kLanes;
    return (numbers + step * kLanes - 1) / (step * kLanes) * (step * kLanes);
  }

  const LineSet<T, kSets>& lines() const { return lines_; }

  bool all_finite(int64_t from = 0) const {
    bool all = true;
    for (const T* line : lines_) all = all && racnn::cpu::RACNN_ISA::all_finite(line + from, padded_);
    return all;
  }

  // `plane` is pixel 0 of its row 0; `next` whether another one follows.
  void start_plane(const From* plane, int64_t channel, bool next) {
    plane_ = plane;
    from_ = plane + shape_.first * rows_.strides.x;
    next_ = next;
    if (affine_.scale == nullptr) return;
    for (int64_t e = 0; e < shape_.numbers; ++e) {
      if (shape_.offsets != nullptr && shape_.offsets[e] < 0) continue;
      scale_[e] = T(affine_.scale[channel + e % rows_.step]);
      shift_[e] = T(affine_.shift[channel + e % rows_.step]);
    }
  }

  // Lines `at` numbers behind the first.
  RACNN_INLINE void make(const RowPlan<T>& plan, int64_t at = 0) {
    const From* const from = from_ + plan.offset;
    const int64_t stride = rows_.strides.y;
    const int32_t count = plan.count;
    const bool plain = (count == 1 || count == 2) && scale_ == nullptr && shape_.offsets == nullptr;
    if (!plain || from + (count - 1) * stride + padded_ > rows_.end) return make_any(plan, at);
    const T* weights[kSets];
    T* lines[kSets];
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) {
      weights[s] = plan.weights + s * count;
      lines[s] = lines_[s] + at;
    }
    if (count == 1) {
      blend_counted<1, false>(from, stride, 1, weights, lines, padded_, {}, ahead(plan));
    } else {
      blend_counted<2, false>(from, stride, 2, weights, lines, padded_, {}, ahead(plan));
    }
    clear_end(at);
  }

  // A line of no rows.
  void clear(int64_t at) {
    for (T* line : lines_) fill_row(T(0), shape_.numbers, line + at);
  }

 private:
  static int64_t line_zeros(const LineShape& shape) { return (shape.zeros + kLanes - 1) / kLanes * kLanes; }

  static constexpr int32_t kRowsAtOnce = 64;

  template <typename Number>
  static Number* zeros_of(Arena& arena, int64_t count) {
    Number* numbers = arena.take<Number>(count);
    for (int64_t e = 0; e < count; ++e) numbers[e] = Number{};
    return numbers;
  }

  static T* zeros(Arena& arena, int64_t count) { return zeros_of<T>(arena, count); }

  RACNN_INLINE RowsAhead<From> ahead(const RowPlan<T>& plan) const {
    if (plan.ahead_in_next && !next_) return {};
    return {from_ + (plan.ahead_in_next ? rows_.strides.c : 0) + plan.ahead_offset, plan.ahead_count};
  }

  // What came with the last register.
  RACNN_INLINE void clear_end(int64_t at) {
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) store_register(lines_[s] + at + shape_.numbers, Register<T>{});
  }

  // In groups of rows, so that copies of them stay few; the same groups whether they are copied or not.
  RACNN_NOINLINE void make_any(const RowPlan<T>& plan, int64_t at) {
    for (int32_t k = 0; k < plan.count; k += kRowsAtOnce) {
      T* lines[kSets];
      for (int s = 0; s < kSets; ++s) {
        if (k > 0 && more_[s] == nullptr) more_[s] = zeros(arena_, padded_);
        lines[s] = k > 0 ? more_[s] : lines_[s] + at;
      }
      make_group(plan, k, lesser(plan.count - k, kRowsAtOnce), lines);
      for (int s = 0; k > 0 && s < kSets; ++s) {
        for (int64_t e = 0; e < padded_; ++e) lines_[s][at + e] += more_[s][e];
      }
    }
    clear_end(at);
  }

  // Rows [first, first + count) of the plan.
  void make_group(const RowPlan<T>& plan, int32_t first, int32_t count, T* const (&lines)[kSets]) {
    int64_t stride = rows_.strides.y;
    const int64_t offset = plan.offset + first * stride;
    const From* from = from_ + offset;
    RowsAhead<From> rows_ahead = first == 0 ? ahead(plan) : RowsAhead<From>{};
    if (shape_.offsets != nullptr || from + (count - 1) * stride + padded_ > rows_.end) {
      if (copy_ == nullptr) copy_ = zeros_of<From>(arena_, longest_ * padded_);
      for (int64_t k = 0; k < count; ++k) copy(plane_ + offset + k * stride, copy_ + k * padded_);
      from = copy_;
      stride = padded_;
      rows_ahead.count = 0;
    }
    const T* weights[kSets];
    LineAffine<T, kSets> affine{scale_, shift_};
    for (int s = 0; s < kSets; ++s) {
      weights[s] = plan.weights + int64_t(s) * plan.count + first;
      affine.weights[s] = first == 0 ? plan.sums[s] : T(0);
    }
    blend_whole<kSets>(from, stride, count, weights, lines, padded_, affine, rows_ahead);
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

  Arena& arena_;
  Rows<From> rows_;
  LineShape shape_;
  ChannelAffine affine_;
  int64_t padded_, longest_;
  const From* plane_ = nullptr;
  const From* from_ = nullptr;
  bool next_ = false;
  LineSet<T, kSets> lines_;
  T* scale_ = nullptr;
  T* shift_ = nullptr;
  T* more_[kSets] = {};   // what further groups of rows add
  From* copy_ = nullptr;  // of rows, made when the first is needed
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

// Lines of a gradient, `together` rows in one, where they lie; or copied where their numbers are far apart or
// near the tensor's end: whole registers of them are read, `read` numbers.
template <typename Grad>
class GradLines {
 public:
  GradLines(Arena& arena, const Rows<Grad>& rows, int64_t pixels, int32_t together, int64_t read)
      : rows_(rows), numbers_(together * pixels * rows.step), read_(read) {
    const Strides& s = rows.strides;
    here_ = is_dense(s, rows.step) && (together == 1 || s.y == pixels * rows.step);
    if (!here_) offsets_ = arena.take<int64_t>(numbers_);
    for (int64_t e = 0; !here_ && e < numbers_; ++e) {
      const int64_t pixel = e / rows.step;
      offsets_[e] = pixel / pixels * s.y + pixel % pixels * s.x + e % rows.step * s.c;
    }
    copy_ = arena.take<Grad>(read);
    for (int64_t e = 0; e < read; ++e) copy_[e] = Grad{};
  }

  // From row i of a plane on.
  RACNN_INLINE const Grad* line(const Grad* plane, int32_t i) const {
    const Grad* const row = plane + i * rows_.strides.y;
    return here_ && row + read_ <= rows_.end ? row : copied(row);
  }

  RACNN_INLINE void fetch_ahead(const Grad* plane, int32_t i) const {
    if (here_) RowsAhead<Grad>{plane + (i + kRowsAhead) * rows_.strides.y, 1}.fetch(0, 0, numbers_);
  }

 private:
  RACNN_NOINLINE const Grad* copied(const Grad* row) const {
    for (int64_t e = 0; e < numbers_; ++e) copy_[e] = row[here_ ? e : offsets_[e]];
    return copy_;
  }

  Rows<Grad> rows_;
  int64_t numbers_, read_;
  bool here_;
  int64_t* offsets_ = nullptr;
  Grad* copy_;
};

}  // namespace racnn::cpu::RACNN_ISA
