// SPDX-License-Identifier: BSD-3-Clause
//
// Memory for the sanitizer to watch: blocks from the heap that end with the last element that a tensor of the
// given sizes and strides has.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels.h"

namespace racnn::test {

using Random = std::mt19937;

inline void write(float value, float* to) { *to = value; }
inline void write(float value, double* to) { *to = value; }
inline void write(float value, uint8_t* to) { *to = uint8_t(value * 100.0f); }
inline void write(float value, cpu::Half* to) { *to = cpu::to_half(value); }
inline void write(float value, cpu::BFloat16* to) { *to = cpu::to_bfloat16(value); }

// `count` numbers between 0 and 2; not std::vector, whose capacity may be larger.
template <typename T>
std::unique_ptr<T[]> random_block(int64_t count, Random& random) {
  auto block = std::make_unique<T[]>(size_t(count));
  std::uniform_real_distribution<float> uniform(0.0f, 2.0f);
  for (int64_t i = 0; i < count; ++i) write(uniform(random), block.get() + i);
  return block;
}

// The same byte everywhere, to see later which were written.
template <typename T>
std::unique_ptr<T[]> filled_block(int64_t count, int byte) {
  auto block = std::make_unique<T[]>(size_t(count));
  std::memset(static_cast<void*>(block.get()), byte, size_t(count) * sizeof(T));
  return block;
}

enum class Layout { kContiguous, kChannelsLast, kTransposed, kEverySecond, kConstant, kBatchInnermost };
constexpr Layout kLayouts[] = {Layout::kContiguous,  Layout::kChannelsLast, Layout::kTransposed,
                               Layout::kEverySecond, Layout::kConstant,     Layout::kBatchInnermost};

struct Sizes {
  int64_t b, k, c, y, x;
};

inline Strides make_strides(Layout layout, const Sizes& n) {
  switch (layout) {
    case Layout::kChannelsLast:
      return {n.k * n.y * n.x * n.c, n.y * n.x * n.c, 1, n.x * n.c, n.c};
    case Layout::kTransposed:
      return {n.k * n.c * n.x * n.y, n.c * n.x * n.y, n.x * n.y, 1, n.y};
    case Layout::kEverySecond:
      return {n.k * n.c * n.y * n.x * 4, n.c * n.y * n.x * 4, n.y * n.x * 4, n.x * 4, 2};
    case Layout::kConstant:
      return {0, 0, 0, 0, 0};
    case Layout::kBatchInnermost:
      return {1, n.b, n.k * n.b, n.c * n.k * n.b, n.y * n.c * n.k * n.b};
    case Layout::kContiguous:
      break;
  }
  return {n.k * n.c * n.y * n.x, n.c * n.y * n.x, n.y * n.x, n.x, 1};
}

// From the first element to the last.
inline int64_t extent(const Strides& s, const Sizes& n) {
  return 1 + (n.b - 1) * s.b + (n.k - 1) * s.k + (n.c - 1) * s.c + (n.y - 1) * s.y + (n.x - 1) * s.x;
}

}  // namespace racnn::test
