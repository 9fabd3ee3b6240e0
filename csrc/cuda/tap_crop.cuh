// SPDX-License-Identifier: BSD-3-Clause
//
// The contraction with given tap tables (TapTables in crop.h) and its transpose: with tap_grad.cuh what
// forward mode, higher derivatives and vmap are made of. Plain kernels: tables come from memory, one output
// or pixel a thread.
//
// An output reads two by two pixels whatever the number of terms: their weights are added up first. Nothing
// is added atomically: a thread or a warp owns each result, and the order is fixed.
#pragma once

#include <algorithm>

#include "../crop.h"
#include "numeric.cuh"

namespace racnn {

constexpr int kTapThreads = 256;
constexpr int kTapWarps = kTapThreads / kWarp;
constexpr int kTapChannels = 4;  // of a thread, where the channels are not neighbours in memory

// Elements of crops or images, [N, C, rows, columns], dealt out to threads: neighbouring threads get
// neighbouring addresses, and where those are of one channel a thread takes kTapChannels channels.
struct Deal {
  int64_t channels, groups;
  int32_t rows, columns;
  bool channels_fastest;

  Deal(int64_t channels, int32_t rows, int32_t columns, const Strides& strides)
      : channels(channels),
        rows(rows),
        columns(columns),
        channels_fastest(channels > 1 && strides.c < strides.x) {
    groups = channels_fastest ? channels : (channels + kTapChannels - 1) / kTapChannels;
  }

  int64_t items(int64_t n) const { return n * groups * rows * columns; }

  struct Item {
    int64_t n, channel;
    int32_t count;  // of channels
    int32_t row, column;
  };

  __device__ __forceinline__ Item item(int64_t index) const {
    Item item;
    int64_t group = 0;
    if (channels_fastest) group = index % groups, index /= groups;
    item.column = int32_t(index % columns), index /= columns;
    item.row = int32_t(index % rows), index /= rows;
    if (!channels_fastest) group = index % groups, index /= groups;
    item.n = index;
    item.channel = channels_fastest ? group : group * kTapChannels;
    const int64_t left = channels - item.channel;
    item.count = channels_fastest ? 1 : int32_t(left < kTapChannels ? left : kTapChannels);
    return item;
  }
};

// The two weights of one output, of one term.
template <typename T>
RACNN_HOST_DEVICE const T* weights_of(const TapTable<T>& table, int64_t n, int64_t terms, int64_t term,
                                      int32_t out, int32_t j) {
  return table.weights + ((n * terms + term) * out + j) * 2;
}

RACNN_HOST_DEVICE bool is_inside(int64_t pixel, int32_t size) { return pixel >= 0 && pixel < size; }

// Whether an output with this lower pixel reads any: if not it takes no part, whatever its gradient is (0 *
// Inf is NaN).
RACNN_HOST_DEVICE bool reads_any(int64_t lower, int32_t size) { return lower >= -1 && lower < size; }

template <typename T>
struct TapCropParams {
  TapCropProblem<T> problem;
  Deal deal;
  int64_t items;
};

template <typename T>
__global__ void __launch_bounds__(kTapThreads) tap_crop_kernel(TapCropParams<T> p) {
  const TapCropProblem<T>& problem = p.problem;
  const CropShape& s = problem.shape;
  for (int64_t index = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; index < p.items;
       index += int64_t(gridDim.x) * blockDim.x) {
    const Deal::Item at = p.deal.item(index);
    T weights[2][2] = {};
    for (int64_t term = 0; term < problem.taps.terms; ++term) {
      const T* b = weights_of(problem.taps.rows, at.n, problem.taps.terms, term, s.out_height, at.row);
      const T* a = weights_of(problem.taps.columns, at.n, problem.taps.terms, term, s.out_width, at.column);
      RACNN_UNROLL
      for (int k = 0; k < 4; ++k) weights[k / 2][k % 2] = std::fma(b[k / 2], a[k % 2], weights[k / 2][k % 2]);
    }
    const int64_t y = problem.taps.rows.pixels[at.n * s.out_height + at.row];
    const int64_t x = problem.taps.columns.pixels[at.n * s.out_width + at.column];
    const Strides &in = problem.image_strides, &out = problem.out_strides;
    const T* image = problem.images + at.n / s.windows * in.b + at.channel * in.c;
    T* result = problem.out + crop_offset(out, at.n, s.windows) + at.channel * out.c + at.row * out.y +
                at.column * out.x;
    for (int32_t c = 0; c < at.count; ++c) {
      T total = T(0);
      RACNN_UNROLL
      for (int k = 0; k < 4; ++k) {
        if (is_inside(y + k / 2, s.height) && is_inside(x + k % 2, s.width)) {
          total =
              std::fma(weights[k / 2][k % 2], __ldg(image + (y + k / 2) * in.y + (x + k % 2) * in.x), total);
        }
      }
      *result = total;
      image += in.c, result += out.c;
    }
  }
}

// The first output, of `out` in non-decreasing order, whose pixel is at least `bound`.
RACNN_HOST_DEVICE int32_t first_at(const int32_t* pixels, int32_t out, int64_t bound) {
  int32_t low = 0, high = out;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (pixels[middle] < bound) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename T>
struct TapImageGradParams {
  TapImageGradProblem<T> problem;
  Deal deal;
  int64_t items;
};

// Adds up what crop n sends to the pixel `at`.
template <typename T>
__device__ __forceinline__ void gather_taps(const TapImageGradProblem<T>& problem, int64_t n,
                                            const Deal::Item& at, T (&sums)[kTapChannels]) {
  const CropShape& s = problem.shape;
  const Strides& in = problem.grad_strides;
  const int64_t terms = problem.taps.terms;
  const int32_t* rows = problem.taps.rows.pixels + n * s.out_height;
  const int32_t* columns = problem.taps.columns.pixels + n * s.out_width;
  const int32_t row_end = first_at(rows, s.out_height, int64_t(at.row) + 1);
  const int32_t column_begin = first_at(columns, s.out_width, int64_t(at.column) - 1);
  const int32_t column_end = first_at(columns, s.out_width, int64_t(at.column) + 1);
  RACNN_NO_UNROLL
  for (int32_t i = first_at(rows, s.out_height, int64_t(at.row) - 1); i < row_end; ++i) {
    const uint32_t row_side = uint32_t(at.row) - uint32_t(rows[i]);  // 0: the lower weight, 1: the upper
    if (row_side > 1) continue;                                      // only in a table that is not in order
    RACNN_NO_UNROLL
    for (int32_t j = column_begin; j < column_end; ++j) {
      const uint32_t column_side = uint32_t(at.column) - uint32_t(columns[j]);
      if (column_side > 1) continue;
      T weight = T(0);
      RACNN_NO_UNROLL
      for (int64_t term = 0; term < terms; ++term) {
        const T* b = weights_of(problem.taps.rows, n, terms, term, s.out_height, i);
        const T* a = weights_of(problem.taps.columns, n, terms, term, s.out_width, j);
        weight = std::fma(b[row_side], a[column_side], weight);
      }
      const T* grad =
          problem.grad_output + crop_offset(in, n, s.windows) + at.channel * in.c + i * in.y + j * in.x;
      RACNN_UNROLL
      for (int c = 0; c < kTapChannels; ++c) {
        if (c < at.count) sums[c] = std::fma(weight, __ldg(grad + c * in.c), sums[c]);
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kTapThreads) tap_image_grad_kernel(TapImageGradParams<T> p) {
  const TapImageGradProblem<T>& problem = p.problem;
  const Strides& out = problem.image_strides;
  for (int64_t index = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; index < p.items;
       index += int64_t(gridDim.x) * blockDim.x) {
    const Deal::Item at = p.deal.item(index);
    T sums[kTapChannels] = {};
    for (int64_t k = 0; k < problem.shape.windows; ++k) {
      gather_taps(problem, at.n * problem.shape.windows + k, at, sums);
    }
    T* result = problem.grad_images + at.n * out.b + at.channel * out.c + at.row * out.y + at.column * out.x;
    RACNN_UNROLL
    for (int c = 0; c < kTapChannels; ++c) {
      if (c < at.count) result[c * out.c] = sums[c];
    }
  }
}

template <typename Params>
cudaError_t launch_items(void (*kernel)(Params), const Params& params, int64_t items_a_block,
                         size_t shared_bytes, cudaStream_t stream, int64_t max_blocks) {
  const int64_t blocks = (params.items + items_a_block - 1) / items_a_block;
  return launch(kernel, dim3(unsigned(std::min(blocks, max_blocks))), dim3(kTapThreads), shared_bytes, stream,
                params);
}

template <typename T>
cudaError_t launch_tap_crop(const TapCropProblem<T>& p, cudaStream_t stream,
                            int64_t max_blocks = kMaxBlocks) {
  const Deal deal(p.shape.channels, p.shape.out_height, p.shape.out_width, p.out_strides);
  const TapCropParams<T> params{p, deal, deal.items(p.shape.batch * p.shape.windows)};
  if (params.items == 0) return cudaSuccess;
  return launch_items(tap_crop_kernel<T>, params, kTapThreads, 0, stream, max_blocks);
}

template <typename T>
cudaError_t launch_tap_image_grad(const TapImageGradProblem<T>& p, cudaStream_t stream,
                                  int64_t max_blocks = kMaxBlocks) {
  const Deal deal(p.shape.channels, p.shape.height, p.shape.width, p.image_strides);
  const TapImageGradParams<T> params{p, deal, deal.items(p.shape.batch)};
  if (params.items == 0) return cudaSuccess;
  return launch_items(tap_image_grad_kernel<T>, params, kTapThreads, 0, stream, max_blocks);
}

}  // namespace racnn
