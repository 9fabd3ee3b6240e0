// SPDX-License-Identifier: BSD-3-Clause
//
// From rows of an image to one line of accumulation type, the vertical half of a crop. Of an image in the
// usual layouts a line is a piece of the row between zeros; where pixels are far apart it is a list of those
// that are read.
#pragma once

#include "blend.h"
#include "columns.h"

namespace racnn::cpu::RACNN_ISA {

template <typename T, int kSets>
using LineSet = T* [kSets];

// Makes the lines of one crop: kSets at a time, each by its own weights of the rows.
template <typename From, typename T, int kSets>
class LineMaker {
 public:
  static constexpr int64_t kLanes = kRegisterLanes<T>;

  LineMaker(Arena& arena, const Rows<From>& rows, const LineShape& shape, int32_t longest,
            const ChannelAffine& affine)
      : arena_(arena),
        rows_(rows),
        shape_(shape),
        affine_(affine),
        padded_(shape.padded(kLanes)),
        longest_(lesser<int64_t>(longest, kRowsAtOnce)) {
    const int64_t before = (shape.zeros + kLanes - 1) / kLanes * kLanes;
    const int64_t numbers = before + padded_ + shape.zeros + 3 * kLanes;
    for (T*& line : lines_) line = zeros(arena, numbers) + before;
    if (affine.scale != nullptr) {
      scale_ = zeros(arena, padded_);
      shift_ = zeros(arena, padded_);
    }
  }

  const LineSet<T, kSets>& lines() const { return lines_; }

  bool all_finite() const {
    bool all = true;
    for (const T* line : lines_) all = all && racnn::cpu::RACNN_ISA::all_finite(line, padded_);
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

  // Whether the rows of `plan` may be BlendedRows: of columns that blend.
  RACNN_INLINE bool in_place(const RowPlan<T>& plan) const {
    return plan.count == 2 && is_plain() &&
           from_ + plan.offset + rows_.strides.y + shape_.numbers + 2 * kLanes <= rows_.end;
  }

  // As line s.
  RACNN_INLINE BlendedRows<From, T> rows(const RowPlan<T>& plan, int s) const {
    const From* const from = from_ + plan.offset;
    return {from, from + rows_.strides.y, {plan.weights[2 * s], plan.weights[2 * s + 1]}};
  }

  RACNN_INLINE void fetch_ahead(const RowPlan<T>& plan) const {
    ahead(plan).fetch(rows_.strides.y, 0, padded_);
  }

  RACNN_INLINE void make(const RowPlan<T>& plan) {
    const From* const from = from_ + plan.offset;
    const int64_t stride = rows_.strides.y;
    const int32_t count = plan.count;
    if (count < 1 || count > 2 || !is_plain() || from + (count - 1) * stride + padded_ > rows_.end)
      return make_any(plan);
    const T* weights[kSets];
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) weights[s] = plan.weights + s * count;
    if (count == 1) {
      blend_counted<1, false>(from, stride, 1, weights, lines_, padded_, {}, ahead(plan));
    } else {
      blend_counted<2, false>(from, stride, 2, weights, lines_, padded_, {}, ahead(plan));
    }
    clear_end();
  }

 private:
  static constexpr int32_t kRowsAtOnce = 64;

  // Numbers as they lie.
  RACNN_INLINE bool is_plain() const { return scale_ == nullptr && shape_.offsets == nullptr; }

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
  RACNN_INLINE void clear_end() {
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) store_register(lines_[s] + shape_.numbers, Register<T>{});
  }

  // In groups of rows, so that copies of them stay few; the same groups whether they are copied or not.
  RACNN_NOINLINE void make_any(const RowPlan<T>& plan) {
    for (int32_t k = 0; k < plan.count; k += kRowsAtOnce) {
      T* lines[kSets];
      for (int s = 0; s < kSets; ++s) {
        if (k > 0 && more_[s] == nullptr) more_[s] = zeros(arena_, padded_);
        lines[s] = k > 0 ? more_[s] : lines_[s];
      }
      make_group(plan, k, lesser(plan.count - k, kRowsAtOnce), lines);
      for (int s = 0; k > 0 && s < kSets; ++s) {
        for (int64_t e = 0; e < padded_; ++e) lines_[s][e] += more_[s][e];
      }
    }
    clear_end();
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

// Lines of a gradient, where they lie; or copied where their numbers are far apart or
// near the tensor's end: whole registers of them are read, `read` numbers.
template <typename Grad>
class GradLines {
 public:
  GradLines(Arena& arena, const Rows<Grad>& rows, int64_t pixels, int64_t read)
      : rows_(rows), numbers_(pixels * rows.step), read_(read), here_(is_dense(rows.strides, rows.step)) {
    const Strides& s = rows.strides;
    if (!here_) offsets_ = arena.take<int64_t>(numbers_);
    for (int64_t e = 0; !here_ && e < numbers_; ++e) {
      offsets_[e] = e / rows.step * s.x + e % rows.step * s.c;
    }
    copy_ = arena.take<Grad>(read);
    for (int64_t e = 0; e < read; ++e) copy_[e] = Grad{};
  }

  // Row i of a plane.
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
