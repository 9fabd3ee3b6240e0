// SPDX-License-Identifier: BSD-3-Clause
#pragma once

// Always inlined: the CPU kernels are compiled once per instruction set, and the linker must not let one of
// them use another's copy.
#define RACNN_INLINE inline __attribute__((always_inline))

#if defined(__CUDACC__)
#define RACNN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RACNN_HOST_DEVICE RACNN_INLINE
#endif
