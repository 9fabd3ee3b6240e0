// SPDX-License-Identifier: BSD-3-Clause
//
// Sums over warps and blocks, always in the same order: the same bits from run to run.
#pragma once

#include "../problems.h"
#include "numeric.cuh"

namespace racnn {

constexpr int kFinishThreads = 128;  // of kernels that combine partial sums, a warp a window

// Every lane gets the sums over the warp.
template <int kCount, typename T>
__device__ __forceinline__ void warp_sum(T (&values)[kCount]) {
  RACNN_UNROLL
  for (int i = 0; i < kCount; ++i) {
    RACNN_UNROLL
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      values[i] += __shfl_xor_sync(kAllLanes, values[i], lanes);
    }
  }
}

// Thread 0 gets the sums over a block of whole warps. `scratch` holds kCount numbers a warp.
template <int kCount, typename T>
__device__ __forceinline__ void block_sum(T (&values)[kCount], T* scratch) {
  warp_sum(values);
  if (threadIdx.x % kWarp == 0) {
    RACNN_UNROLL
    for (int i = 0; i < kCount; ++i) scratch[threadIdx.x / kWarp * kCount + i] = values[i];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < int(blockDim.x) / kWarp; ++warp) {
      RACNN_UNROLL
      for (int i = 0; i < kCount; ++i) values[i] += scratch[warp * kCount + i];
    }
  }
  __syncthreads();
}

// `sums` are those along the axes, in the order of Window.
template <typename T>
__device__ __forceinline__ void store_window_grad(const Window<T>& window, const T (&sums)[kAxisSums],
                                                  int32_t values, T* grad) {
  store_window_grad(window, Window<T>{sums[0], sums[1], sums[2], sums[3]}, values, grad);
}

}  // namespace racnn
