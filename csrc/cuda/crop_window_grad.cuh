// SPDX-License-Identifier: BSD-3-Clause
//
// The exact gradient of the windows: with the crop's taps a_j(x), b_i(y) and their derivatives d,
//
//     d tx = sum_{c,i,j} g[c, i, j] sum_y sum_x b_i(y) da_j(x)/dtx I[c, y, x],   ty, tw, th alike, d tl = d tw + d th.
//
// Of a tap's two derivatives along x only their sum and the upper one matter: with the source rows interpolated
// vertically to v0 (at the lower column) and v1 (upper), da_lower v0 + da_upper v1 = da_upper (v1 - v0) +
// (da_lower + da_upper) v0. Neither factor depends on rows or channels, so a thread adds up g (v1 - v0) and g v0 for
// its columns, likewise for its rows, and multiplies at the end; differences are taken pixel by pixel, since the sums
// themselves nearly cancel.
//
// Grid: a block is one slot of one window and takes every slots-th tile of it; it reduces four numbers by warp shuffles
// and writes them to its place in the workspace. A second kernel, a warp a window, adds up the slots. No atomics: the
// order is fixed. Loads are those of the forward pass (taps.cuh) plus g, hence the time of reading both once.
#pragma once

#include "affine.cuh"
#include "reduce.cuh"
#include "taps.cuh"

namespace racnn {

constexpr int kAxisSums = 4;  // x, half_x, y, half_y

template <typename Image, typename Grad>
struct CropWindowGradParams {
  WindowGradProblem<Image, Grad> problem;  // of one chunk of channels
  Tiling tiling;
  int64_t first_slot, slots;  // of a window's `all_slots`, those of this chunk
  int64_t all_slots;
  bool packed;  // g of a thread's kColumns columns is loaded as one word
  AffineChunk<Accumulate<Image>> affine;
};

// The factors of the sums above, along one axis.
template <typename T>
struct TapSlope {
  T centre_step, centre_level;  // d upper weight, d (lower + upper weight), with respect to the centre
  T half_step, half_level;      // with respect to the half side
};

template <typename T>
RACNN_HOST_DEVICE TapSlope<T> make_tap_slope(const Axis<T>& axis, int32_t j) {
  const TapGrad<T> d = make_tap_grad(axis, j);
  return {d.centre_upper, d.centre_lower + d.centre_upper, d.half_upper, d.half_lower + d.half_upper};
}

// What one thread adds up for a row or a column.
template <typename T>
struct SlopeSums {
  T step, level;

  __device__ __forceinline__ void add_to(const TapSlope<T>& slope, T& centre, T& half) const {
    centre += std::fma(slope.centre_level, level, slope.centre_step * step);
    half += std::fma(slope.half_level, level, slope.half_step * step);
  }
};

template <typename Image, typename Strip>
struct GradColumns {
  using T = Accumulate<Image>;
  const Image* pixels[Strip::kColumns][2];  // lower and upper pixel in row 0 of the strip's first channel
  T w_lower[Strip::kColumns], w_upper[Strip::kColumns];
  bool counts[Strip::kColumns];  // is a column of the crop and reads a pixel
  SlopeSums<T> sums[Strip::kColumns];
};

// The two pixels that each column reads in one source row.
template <typename Image, typename Strip>
struct WidenedRow {
  using T = Accumulate<Image>;
  using Pixels = Pack<Image, Strip::kChannels>;
  T lower[Strip::kColumns][Strip::kChannels], upper[Strip::kColumns][Strip::kChannels];

  __device__ __forceinline__ void set(const Pixels (&pixels)[Strip::kColumns][2], const AffineChunk<T>& affine,
                                      int64_t c) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      RACNN_UNROLL
      for (int v = 0; v < Strip::kChannels; ++v) {
        lower[m][v] = widen<T>(pixels[m][0].values[v]);
        upper[m][v] = widen<T>(pixels[m][1].values[v]);
        if (affine.used) {
          lower[m][v] = std::fma(lower[m][v], affine.scale[c + v], affine.shift[c + v]);
          upper[m][v] = std::fma(upper[m][v], affine.scale[c + v], affine.shift[c + v]);
        }
      }
    }
  }
};

// g at the thread's columns in one output row.
template <typename Strip, typename Image, typename Grad>
__device__ __forceinline__ void load_grad_row(const CropWindowGradParams<Image, Grad>& p, const Grad* grad,
                                              int32_t first_column,
                                              Pack<Grad, Strip::kColumns * Strip::kChannels>& row) {
  if constexpr (Strip::kChannels > 1) {
    row = load_pack<Strip::kChannels>(grad);
  } else if (p.packed) {
    row = load_pack<Strip::kColumns>(grad);
  } else {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      const int32_t step = m * p.tiling.column_step;
      if (first_column + step < p.problem.shape.out_width) {
        row.values[m] = __ldg(grad + step * p.problem.grad_strides.x);
      }
    }
  }
}

template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void add_row(const Pack<Grad, Strip::kColumns * Strip::kChannels>& grads,
                                        const RowTap<T>& row, const WidenedRow<Image, Strip>& lower,
                                        const WidenedRow<Image, Strip>& upper, GradColumns<Image, Strip>& columns,
                                        SlopeSums<T>& row_sums) {
  RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    if (!columns.counts[m]) continue;
    RACNN_UNROLL
    for (int v = 0; v < Strip::kChannels; ++v) {
      const T g = widen<T>(grads.values[m * Strip::kChannels + v]);
      const T p00 = lower.lower[m][v], p01 = lower.upper[m][v], p10 = upper.lower[m][v], p11 = upper.upper[m][v];
      const T step_x = std::fma(row.w_upper, p11 - p10, row.w_lower * (p01 - p00));
      const T level_x = std::fma(row.w_upper, p10, row.w_lower * p00);
      const T step_y = std::fma(columns.w_upper[m], p11 - p01, columns.w_lower[m] * (p10 - p00));
      const T level_y = std::fma(columns.w_upper[m], p01, columns.w_lower[m] * p00);
      columns.sums[m].step = std::fma(g, step_x, columns.sums[m].step);
      columns.sums[m].level = std::fma(g, level_x, columns.sums[m].level);
      row_sums.step = std::fma(g, step_y, row_sums.step);
      row_sums.level = std::fma(g, level_y, row_sums.level);
    }
  }
}

// A strip of one thread at channel c: rows [0, kRows) of `rows`, of which those beyond the crop are not inside.
template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void window_grad_strip(const CropWindowGradParams<Image, Grad>& p, const RowTap<T>* rows,
                                                  const Grad* grad, int32_t first_column, int64_t c,
                                                  GradColumns<Image, Strip>& columns,
                                                  SlopeSums<T> (&row_sums)[Strip::kRows]) {
  SourcePixels<Image, Strip> source;
  Pack<Grad, Strip::kColumns * Strip::kChannels> grads[Strip::kRows];
  source.load(columns.pixels, rows);
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    if (rows[r].plan & kInside) load_grad_row<Strip>(p, grad + r * p.problem.grad_strides.y, first_column, grads[r]);
  }
  WidenedRow<Image, Strip> lower{}, upper{};
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    const int32_t plan = rows[r].plan;
    if (plan & kLoadLower) {
      lower.set(source.lower[r], p.affine, c);
    } else if (plan & kStepDown) {
      lower = upper;
    }
    if (plan & kLoadUpper) upper.set(source.upper[r], p.affine, c);
    if (plan & kInside) add_row<Strip>(grads[r], rows[r], lower, upper, columns, row_sums[r]);
  }
}

template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void window_grad_tile(const CropWindowGradParams<Image, Grad>& p, int64_t crop,
                                                 const Tile& tile, const Axis<T>& x_axis, const RowTap<T>* rows,
                                                 const TapSlope<T>* row_slopes, T (&sums)[kAxisSums]) {
  const WindowGradProblem<Image, Grad>& problem = p.problem;
  const CropShape& shape = problem.shape;
  const Lane lane = lane_at(p.tiling, threadIdx.x);
  const int32_t j = tile.column + lane.column * (p.packed ? Strip::kColumns : 1);
  if (!lane.exists || j >= shape.out_width) return;

  const int64_t channel = tile.channel + lane.channel * Strip::kChannels;
  const int64_t channel_step = p.tiling.channel_lanes * Strip::kChannels;
  const int64_t channel_end = lesser(tile.channel + p.tiling.channels, shape.channels);
  const Image* image = problem.images + crop / shape.windows * problem.image_strides.b;
  const Grad* grad =
      problem.grad_output + crop_offset(problem.grad_strides, crop, shape.windows) + j * problem.grad_strides.x;
  const int32_t row_end = lesser(tile.row + p.tiling.rows, shape.out_height);
  const int32_t row_step = p.tiling.row_lanes * Strip::kRows;

  GradColumns<Image, Strip> columns{};
  RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    const int32_t column = j + m * p.tiling.column_step;
    if (column >= shape.out_width) continue;
    const ReadableTap<T> tap = readable(make_tap(x_axis, column));
    columns.w_lower[m] = tap.tap.w_lower, columns.w_upper[m] = tap.tap.w_upper;
    columns.counts[m] = tap.inside;
  }
  (void)image, (void)grad, (void)channel_end, (void)channel_step, (void)row_end, (void)row_step, (void)channel;
}
