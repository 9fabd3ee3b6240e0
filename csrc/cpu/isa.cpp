// SPDX-License-Identifier: BSD-3-Clause
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace racnn::cpu {

static Isa best_isa() {
#if defined(RACNN_X86)
  __builtin_cpu_init();
  const char* limit = std::getenv("RACNN_CPU_CAPABILITY");
  const bool baseline_only = limit != nullptr && std::strcmp(limit, "baseline") == 0;
  const bool no_avx512 = limit != nullptr && std::strcmp(limit, "avx2") == 0;
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && !baseline_only && !no_avx512) return Isa::kAvx512;
  if (avx2 && !baseline_only) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa isa() {
  static const Isa chosen = best_isa();
  return chosen;
}

}  // namespace racnn::cpu

// For `python -m racnn_ops`.
extern "C" __attribute__((visibility("default"))) const char* racnn_cpu_capability() {
  switch (racnn::cpu::isa()) {
    case racnn::cpu::Isa::kAvx512:
      return "avx512";
    case racnn::cpu::Isa::kAvx2:
      return "avx2";
    case racnn::cpu::Isa::kBaseline:
      break;
  }
#if defined(__AARCH64EL__)
  return "neon";  // which every processor has
#else
  return "baseline";
#endif
}
