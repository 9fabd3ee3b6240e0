// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU kernels as the rest of the program sees them: each works on units [begin, end) and exists once per
// instruction set. `select` picks the one for this machine.
#pragma once

#include "../problems.h"
#include "units.h"

namespace racnn::cpu {

// What a unit of boxcar_grad adds up, in the unnormalised energy E; E * (shrink / 2 - ...) for the half
// sides.
template <typename T>
struct BoxcarSums {
  Window<T> sums;
  T most;  // largest energy, NaN if one was NaN
};

// Thrown by a kernel: so much memory could not be had. No class with functions, as those of std::bad_alloc,
// which the linker would share between instruction sets.
struct OutOfMemory {
  size_t bytes;
};

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that machine, build and RACNN_CPU_CAPABILITY (baseline, avx2, avx512) allow.
Isa isa();

template <typename Problem>
using Kernel = void (*)(const Problem&, const Units&, int64_t begin, int64_t end);

#define RACNN_DECLARE_RUN_UNITS(ISA)                                        \
  namespace ISA {                                                           \
  template <typename Problem>                                               \
  void run_units(const Problem&, const Units&, int64_t begin, int64_t end); \
  }

RACNN_DECLARE_RUN_UNITS(baseline)
#if defined(RACNN_X86)
RACNN_DECLARE_RUN_UNITS(avx2)
RACNN_DECLARE_RUN_UNITS(avx512)
#endif

template <typename Problem>
Kernel<Problem> select() {
#if defined(RACNN_X86)
  if (isa() == Isa::kAvx512) return avx512::run_units<Problem>;
  if (isa() == Isa::kAvx2) return avx2::run_units<Problem>;
#endif
  return baseline::run_units<Problem>;
}

}  // namespace racnn::cpu
