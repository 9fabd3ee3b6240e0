// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU backend: its kernels on torch's thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../cpu/launch.h"
#include "register.h"

namespace racnn::cpu {

void parallel_for(int64_t items, const std::function<void(int64_t begin, int64_t end)>& work) {
  torch::stable::parallel_for(0, items, 1, work);
}

struct CpuBackend : BackendTypes<Half, BFloat16> {
  static constexpr int64_t kMostNormalised = INT64_MAX;

  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  static int64_t window_grad_workspace(const CropShape& s) { return cpu::window_grad_workspace(s); }
  static int64_t tap_grad_workspace(const CropShape& s) { return cpu::tap_grad_workspace(s); }
  static int64_t boxcar_grad_workspace(const CropShape& s, Energy energy) {
    return cpu::boxcar_grad_workspace(s, energy);
  }

  template <typename Problem>
  static void compute(const Problem& problem) {
    cpu::compute(problem);
  }
};

}  // namespace racnn::cpu

STABLE_TORCH_LIBRARY_IMPL(racnn_ops, CPU, m) { racnn::register_operators<racnn::cpu::CpuBackend>(m); }
