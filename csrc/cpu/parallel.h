// SPDX-License-Identifier: BSD-3-Clause
//
// Whose threads the CPU kernels run on. Declared here and defined beside the registration with torch
// (torch/cpu.cpp): nothing else here knows torch.
#pragma once

#include <cstdint>
#include <functional>

namespace racnn::cpu {

// Calls `work` for parts [begin, end) of [0, items) on several threads, and waits for all.
void parallel_for(int64_t items, const std::function<void(int64_t begin, int64_t end)>& work);

}  // namespace racnn::cpu
