// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels need from CUDA: they use the names below and the built-ins, nothing else, so that the same
// files compile with nvcc and, for the tests, with a C++ compiler under an emulation of the CUDA model.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define RACNN_UNROLL _Pragma("unroll")
#define RACNN_NO_UNROLL _Pragma("unroll 1")
#define RACNN_NO_INLINE __noinline__
#else
#include "cuda_emulation.h"
#define RACNN_UNROLL  // for nvcc it keeps small arrays in registers
#define RACNN_NO_UNROLL
#define RACNN_NO_INLINE
#endif

#include <cstddef>
#include <cstdint>

namespace racnn {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// CUDA's limit on gridDim.x. Every kernel strides over its work by the grid, so a smaller limit changes
// nothing but the speed.
constexpr int64_t kMaxBlocks = 0x7fffffff;

// Of an H100. Where results would depend on it, to the bit, all GPUs are taken for one.
constexpr int64_t kMultiprocessors = 132;

inline int64_t multiprocessors() {
  int count = kMultiprocessors;
#if defined(__CUDACC__)
  int device = 0;
  if (cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  }
#endif
  return count;
}

// Of blocks with kThreads threads that a multiprocessor can hold.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kMostResidentBlocks = 4;
#else
constexpr int kMostResidentBlocks = 6;
#endif

// Whether the same code takes a register or two more than on an H100.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kFewerRegisters = true;
#else
constexpr bool kFewerRegisters = false;
#endif

// The block's dynamic shared memory; there is no other in this library.
template <typename T>
__device__ __forceinline__ T* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char racnn_shared_memory[];
  return reinterpret_cast<T*>(racnn_shared_memory);
#else
  return static_cast<T*>(emulation::shared_memory());
#endif
}

template <typename Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
#if defined(__CUDACC__)
  kernel<<<grid, block, shared_bytes, stream>>>(params);
  return cudaGetLastError();
#else
  return emulation::launch(kernel, grid, block, shared_bytes, stream, params);
#endif
}

}  // namespace racnn
