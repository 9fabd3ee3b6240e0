// SPDX-License-Identifier: BSD-3-Clause
//
// Where the rows and columns of a crop find their pixels: the layout of a line, what an output reads of it,
// and which rows of the image it is made of. Lines themselves are made in lines.h.
#pragma once

#include "band.h"
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
  bool blends;      // a line would be without zeros: rows need not become one, whatever their layout

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
  const Range read = axis.range();
  const int64_t taps = greater(axis.longest, 1), pixels = read.size();
  Columns<T> columns{axis,  {},   taps, arena.take<int32_t>(axis.out), arena.take<int32_t>(axis.out),
                     false, false};
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
  columns.line = piece_of_row(arena, read.begin, pixels, taps, images, step);
  columns.blends = taps == kBlendedTaps;
  for (int32_t j = 0; j < axis.out; ++j) {
    const Run& run = axis.runs[j];
    columns.blends &= run.count == kBlendedTaps;
    // Short runs at an edge of the image are among the zeros beyond it.
    const bool at_begin = run.first == 0 && run.count < taps;
    columns.before[j] = at_begin ? int32_t(taps) - run.count : 0;
    columns.first[j] = run.count == 0 ? -int32_t(taps) : run.first - columns.before[j] - read.begin;
    columns.uneven |= run.count > 0 && !at_begin && run.count < taps && run.first + taps <= axis.size;
  }
  return columns;
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

}  // namespace racnn::cpu::RACNN_ISA
