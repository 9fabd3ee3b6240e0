// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU backend for torch, on torch's thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../cpu/backend.h"
#include "register.h"

namespace racnn::cpu {

void parallel_for(int64_t items, const std::function<void(int64_t begin, int64_t end)>& work) {
  torch::stable::parallel_for(0, items, 1, work);
}

struct CpuBackend : Backend {
  static constexpr int64_t kSmallWorkspace = 64;

  struct Guard {
    explicit Guard(const Tensor&) {}
  };
};

}  // namespace racnn::cpu

static const racnn::Registration registration(racnn::Kind::IMPL,
                                              &racnn::register_operators<racnn::cpu::CpuBackend>, "CPU",
                                              __FILE__, __LINE__);
