// SPDX-License-Identifier: BSD-3-Clause
//
// The transpose of the contraction with given tap tables, as a gather.
#pragma once

#include "tap_tables.cuh"

namespace racnn {

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

// Adds up what crop n sends to the pixel `at`.
template <typename T>
__device__ __forceinline__ void gather_taps(const TapImageGradProblem<T>& problem, int64_t n,
                                            const Deal::Item& at, T (&sums)[kTapChannels]) {
  const CropShape& s = problem.shape;
  const Strides& in = problem.grad_strides;
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
      const T weight = weights_of(problem.taps.rows, n, s.out_height, i)[row_side] *
                       weights_of(problem.taps.columns, n, s.out_width, j)[column_side];
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
__global__ void __launch_bounds__(kTapThreads) tap_image_grad_kernel(DealtParams<TapImageGradProblem<T>> p) {
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

template <typename T>
cudaError_t compute(const TapImageGradProblem<T>& p, cudaStream_t stream, int64_t max_blocks = kMaxBlocks) {
  const Deal deal(p.shape.channels, p.shape.height, p.shape.width, p.image_strides);
  const DealtParams<TapImageGradProblem<T>> params{p, deal, deal.items(p.shape.batch)};
  if (params.items == 0) return cudaSuccess;
  return launch_items(tap_image_grad_kernel<T>, params, stream, max_blocks);
}

}  // namespace racnn
