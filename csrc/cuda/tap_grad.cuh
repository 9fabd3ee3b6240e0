// SPDX-License-Identifier: BSD-3-Clause
//
// The gradients of tap tables' weights (TapGradProblem in problems.h).
#pragma once

#include "reduce.cuh"
#include "tap_tables.cuh"

namespace racnn {

template <typename T>
struct TapGradParams {
  TapGradProblem<T> problem;
  int64_t items;
};

// sum over t of column weight[t] * I[y, x + t], without what lies outside.
template <typename T>
__device__ __forceinline__ T pixel_pair(const T* row, int64_t x, int64_t stride, int32_t width, T w_lower,
                                        T w_upper) {
  const T lower = is_inside(x, width) ? w_lower * __ldg(row + x * stride) : T(0);
  return is_inside(x + 1, width) ? std::fma(w_upper, __ldg(row + (x + 1) * stride), lower) : lower;
}

// A warp for each output row of each crop; its lanes share out columns and channels.
template <typename T>
__global__ void __launch_bounds__(kTapThreads) tap_grad_rows_kernel(TapGradParams<T> p) {
  const TapGradProblem<T>& problem = p.problem;
  const CropShape& s = problem.shape;
  const Strides &in = problem.image_strides, &g = problem.grad_strides;
  const bool channels_fastest = s.channels > 1 && in.c < in.x;
  const int64_t lane = threadIdx.x % kWarp;
  for (int64_t item = blockIdx.x * int64_t(kTapWarps) + threadIdx.x / kWarp; item < p.items;
       item += int64_t(gridDim.x) * kTapWarps) {
    const int32_t i = int32_t(item % s.out_height);
    const int64_t n = item / s.out_height;
    const int64_t y = problem.taps.rows.pixels[n * s.out_height + i];
    const T* weights = problem.taps.columns.weights + n * s.out_width * 2;
    const T* image = problem.images + n / s.windows * in.b + y * in.y;
    const T* grad = problem.grad_output + crop_offset(g, n, s.windows) + i * g.y;
    T sums[2] = {};
    for (int64_t e = lane; e < s.channels * s.out_width; e += kWarp) {
      const int64_t c = channels_fastest ? e % s.channels : e / s.out_width;
      const int32_t j = int32_t(channels_fastest ? e / s.channels : e % s.out_width);
      const int64_t x = problem.taps.columns.pixels[n * s.out_width + j];
      if (!reads_any(x, s.width)) continue;
      const T value = __ldg(grad + c * g.c + j * g.x);
      RACNN_UNROLL
      for (int k = 0; k < 2; ++k) {
        if (!is_inside(y + k, s.height)) continue;
        const T pixel =
            pixel_pair(image + c * in.c + k * in.y, x, in.x, s.width, weights[2 * j], weights[2 * j + 1]);
        sums[k] = std::fma(value, pixel, sums[k]);
      }
    }
    warp_sum(sums);
    if (lane == 0) {
      problem.grad_row_weights[item * 2] = sums[0];
      problem.grad_row_weights[item * 2 + 1] = sums[1];
    }
  }
}

// A block for each kWarp output columns of each crop: a lane a column, the warps share out rows and channels.
template <typename T>
__global__ void __launch_bounds__(kTapThreads) tap_grad_columns_kernel(TapGradParams<T> p) {
  const TapGradProblem<T>& problem = p.problem;
  const CropShape& s = problem.shape;
  const Strides &in = problem.image_strides, &g = problem.grad_strides;
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t tiles = (s.out_width + kWarp - 1) / kWarp;
  T(*const scratch)[kWarp][2] = shared_memory<T[kWarp][2]>();
  for (int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const int32_t j = int32_t(item % tiles) * kWarp + lane;
    const int64_t n = item / tiles;
    T sums[2] = {};
    if (j < s.out_width) {
      const int64_t x = problem.taps.columns.pixels[n * s.out_width + j];
      const T* weights = problem.taps.rows.weights + n * s.out_height * 2;
      const T* image = problem.images + n / s.windows * in.b;
      const T* grad = problem.grad_output + crop_offset(g, n, s.windows) + j * g.x;
      for (int64_t e = warp; e < s.channels * s.out_height; e += kTapWarps) {
        const int64_t c = e / s.out_height, i = e % s.out_height;
        const int64_t y = problem.taps.rows.pixels[n * s.out_height + i];
        if (!reads_any(y, s.height)) continue;
        const T value = __ldg(grad + c * g.c + i * g.y);
        RACNN_UNROLL
        for (int k = 0; k < 2; ++k) {
          if (!is_inside(x + k, s.width)) continue;
          const T pixel = pixel_pair(image + c * in.c + (x + k) * in.x, y, in.y, s.height, weights[2 * i],
                                     weights[2 * i + 1]);
          sums[k] = std::fma(value, pixel, sums[k]);
        }
      }
    }
    scratch[warp][lane][0] = sums[0];
    scratch[warp][lane][1] = sums[1];
    __syncthreads();
    if (warp == 0 && j < s.out_width) {
      for (int other = 1; other < kTapWarps; ++other) {
        sums[0] += scratch[other][lane][0];
        sums[1] += scratch[other][lane][1];
      }
      T* result = problem.grad_column_weights + (n * s.out_width + j) * 2;
      result[0] = sums[0];
      result[1] = sums[1];
    }
    __syncthreads();
  }
}

// Two launches.
template <typename T>
cudaError_t compute(const TapGradProblem<T>& p, cudaStream_t stream, int64_t max_blocks = kMaxBlocks) {
  const int64_t crops = p.shape.batch * p.shape.windows;
  if (crops == 0) return cudaSuccess;
  const TapGradParams<T> rows{p, crops * p.shape.out_height};
  const cudaError_t error = launch_items(tap_grad_rows_kernel<T>, rows, kTapWarps, 0, stream, max_blocks);
  if (error != cudaSuccess) return error;
  const TapGradParams<T> columns{p, crops * ((p.shape.out_width + kWarp - 1) / kWarp)};
  return launch_items(tap_grad_columns_kernel<T>, columns, 1, sizeof(T) * kTapThreads * 2, stream,
                      max_blocks);
}

}  // namespace racnn
