// SPDX-License-Identifier: BSD-3-Clause
//
// Tap tables in the form that the kernels over crops read: row taps in shared memory, once a block, column
// taps in registers, once a thread and tile. And the loads of a strip's source pixels.
//
// Neighbouring output rows share source rows unless the crop is strongly reduced. Each row tap therefore
// carries a plan that says which of its two source rows the strip has not read yet; it is the same for all
// lanes.
#pragma once

#include "numeric.cuh"
#include "tiling.cuh"

namespace racnn {

// A tap of which both indices may be read. An entry outside the image has weight zero; its index repeats the
// other one's, so that no pixel is touched that the formula does not touch (0 * NaN is NaN).
template <typename T>
struct ReadableTap {
  Tap<T> tap;
  bool inside;  // at least one entry is: otherwise whatever is read has to be replaced by zero
};

template <typename T>
RACNN_HOST_DEVICE ReadableTap<T> readable(Tap<T> tap) {
  const bool inside = tap.lower != kOutside || tap.upper != kOutside;
  if (!inside) return {{0, 0, T(0), T(0)}, false};
  if (tap.lower == kOutside) tap.lower = tap.upper;
  if (tap.upper == kOutside) tap.upper = tap.lower;
  return {tap, true};
}

enum RowPlan : int32_t {
  kLoadLower = 1,      // the lower source row is new to the strip
  kStepDown = 2,       // else it is the previous output row's upper one if this is set, or its lower one
  kLoadUpper = 4,      // the upper source row is new; else it is the previous output row's
  kEmpty = INT32_MIN,  // the row reads no pixel; the sign, which is tested for nothing
};

template <typename T>
struct alignas(16) RowTap {
  int64_t lower, upper;  // where the source rows begin, in bytes
  T w_lower, w_upper;
  int32_t plan;
};

template <template <typename> typename Axis, typename T>
RACNN_HOST_DEVICE RowTap<T> make_row_tap(const Axis<T>& axis, int32_t i, bool begins_strip,
                                         int64_t row_bytes) {
  const ReadableTap<T> row = readable(make_tap(axis, i));
  int32_t plan = (row.inside ? 0 : kEmpty) | kLoadLower | kLoadUpper;
  if (!begins_strip) {
    const Tap<T> before = readable(linear_tap(axis, i - 1)).tap;
    if (row.tap.lower == before.lower) {
      plan &= ~kLoadLower;
    } else if (row.tap.lower == before.upper) {
      plan = (plan & ~kLoadLower) | kStepDown;
    }
    if (row.tap.upper == before.upper) plan &= ~kLoadUpper;
  }
  return {row.tap.lower * row_bytes, row.tap.upper * row_bytes, row.tap.w_lower, row.tap.w_upper, plan};
}

// The rows [begin, begin + count) of a tile; those beyond the crop load nothing.
template <int kRows, template <typename> typename Axis, typename T>
__device__ __forceinline__ void make_row_taps(const Axis<T>& axis, int32_t begin, int32_t count,
                                              int64_t row_bytes, RowTap<T>* rows) {
  for (int32_t r = threadIdx.x; r < count; r += blockDim.x) {
    rows[r] = begin + r < axis.out ? make_row_tap(axis, begin + r, r % kRows == 0, row_bytes)
                                   : RowTap<T>{0, 0, T(0), T(0), kEmpty};
  }
}

// The columns of one thread.
template <typename Image, typename Strip>
struct SourceColumns {
  using T = Accumulate<Image>;
  const Image* pixels[Strip::kColumns][2];  // lower and upper pixel, in row 0 of one channel
  T w_lower[Strip::kColumns], w_upper[Strip::kColumns];
  bool inside[Strip::kColumns];  // is a column of the crop, and reads a pixel

  template <typename Axis>
  __device__ __forceinline__ SourceColumns(const Axis& axis, int32_t first, int32_t step, const Image* image,
                                           int64_t stride) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      const int32_t j = first + m * step;
      const ReadableTap<T> column = readable(make_tap(axis, j < axis.out ? j : first));
      pixels[m][0] = image + column.tap.lower * stride;
      pixels[m][1] = image + column.tap.upper * stride;
      w_lower[m] = column.tap.w_lower;
      w_upper[m] = column.tap.w_upper;
      inside[m] = column.inside && j < axis.out;
    }
  }

  __device__ __forceinline__ void advance(int64_t offset) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      pixels[m][0] += offset;
      pixels[m][1] += offset;
    }
  }
};

// The lower and upper pixel of a thread's columns in the two source rows of each row of a strip, as far as
// the plan says to load them.
template <typename Image, typename Strip>
struct SourcePixels {
  using Pixels = Pack<Image, Strip::kChannels>;
  Pixels lower[Strip::kRows][Strip::kColumns][2];
  Pixels upper[Strip::kRows][Strip::kColumns][2];

  template <typename T>
  __device__ __forceinline__ void load(const SourceColumns<Image, Strip>& columns, const RowTap<T>* rows) {
    RACNN_UNROLL
    for (int r = 0; r < Strip::kRows; ++r) {
      if (rows[r].plan & kLoadLower) load_row(columns, rows[r].lower, lower[r]);
      if (rows[r].plan & kLoadUpper) load_row(columns, rows[r].upper, upper[r]);
    }
  }

  __device__ __forceinline__ static void load_row(const SourceColumns<Image, Strip>& columns, int64_t bytes,
                                                  Pixels (&row)[Strip::kColumns][2]) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      row[m][0] = load_pack<Strip::kChannels>(add_bytes(columns.pixels[m][0], bytes));
      row[m][1] = load_pack<Strip::kChannels>(add_bytes(columns.pixels[m][1], bytes));
    }
  }
};

}  // namespace racnn
