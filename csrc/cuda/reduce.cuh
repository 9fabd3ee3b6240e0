// SPDX-License-Identifier: BSD-3-Clause
//
// Sums over warps and blocks, always in the same order: the same bits from run to run.
#pragma once

#include "../crop.h"
#include "numeric.cuh"

namespace racnn {

constexpr int kFinishThreads =
    128;  // of the kernels that combine partial sums: a warp a window, four a block

// Every lane gets the sums over the warp.
template <int kCount, typename T>
__device__ __forceinline__ void warp_sum(T (&values)[kCount]) {
  RACNN_UNROLL
  for (int i = 0; i < kCount; ++i) {
    RACNN_UNROLL
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
      values[i] += __shfl_xor_sync(kAllLanes, values[i], lanes);
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

// The gradient of a window from those of its axes, in the order x, half_x, y, half_y: tx, ty, tl (which moves
// both half sides) or tx, ty, tw, th. NaN for a window that is not finite.
template <typename T>
__device__ __forceinline__ void store_window_grad(const Window<T>& window, const T (&axes)[4], int32_t values,
                                                  T* grad) {
  const T unless_finite = is_finite(window) ? T(0) : kNaN<T>;
  grad[0] = axes[0] + unless_finite;
  grad[1] = axes[2] + unless_finite;
  grad[2] = (values == 3 ? axes[1] + axes[3] : axes[1]) + unless_finite;
  if (values == 4) grad[3] = axes[3] + unless_finite;
}

}  // namespace racnn
