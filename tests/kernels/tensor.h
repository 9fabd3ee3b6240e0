// SPDX-License-Identifier: BSD-3-Clause
//
// Memory for images [B, C, H, W] and crops [B, K, C, h, w]: of every dtype and layout, pseudo-random or
// poisoned, and not a byte longer than the last number.
#pragma once

#include <array>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>

#include "../../csrc/cpu/half.h"
#include "../../csrc/problems.h"

namespace racnn::cpu {

template <typename T>
constexpr const char* kNameOf = "";
template <>
constexpr const char* kNameOf<float> = "float32";
template <>
constexpr const char* kNameOf<double> = "float64";
template <>
constexpr const char* kNameOf<uint8_t> = "uint8";
template <>
constexpr const char* kNameOf<Half> = "float16";
template <>
constexpr const char* kNameOf<BFloat16> = "bfloat16";

inline double to_double(float value) { return double(value); }
inline double to_double(double value) { return value; }
inline double to_double(uint8_t value) { return double(value); }
inline double to_double(Half value) { return double(to_float(value)); }
inline double to_double(BFloat16 value) { return double(to_float(value)); }

enum class Layout {
  kContiguous,
  kChannelsLast,
  kTransposed,   // x farthest apart of the pixels' axes
  kSliced,       // gaps between rows
  kEverySecond,  // gaps between pixels
};

// The same numbers in every run: the high bits of a linear congruential generator (Knuth's MMIX).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(state_ >> 32);
  }

  // All bytes, or [-1, 1).
  template <typename T>
  T number() {
    if constexpr (std::is_same_v<T, uint8_t>) return uint8_t(bits() >> 24);
    const float value = float(int32_t(bits()) >> 8) * 0x1p-23f;
    if constexpr (std::is_same_v<T, Half>) return to_half(value);
    if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(value);
    if constexpr (std::is_floating_point_v<T>) return T(value);
  }

 private:
  uint64_t state_;
};

// Filled with NaN, or the largest number of a byte.
template <typename T>
class Tensor {
 public:
  Tensor(const std::array<int64_t, 5>& sizes, Layout layout) : sizes_(sizes) {
    const bool channels_last = layout == Layout::kChannelsLast, transposed = layout == Layout::kTransposed;
    std::array<int, 5> order{4, 3, 2, 1, 0};  // innermost first
    if (channels_last) order = {2, 4, 3, 1, 0};
    if (transposed) order = {3, 4, 2, 1, 0};
    int64_t step = layout == Layout::kEverySecond ? 2 : 1;
    count_ = 1;
    for (const int axis : order) {
      strides_[axis] = step;
      count_ += (sizes[axis] - 1) * step;
      step *= sizes[axis];
      if (axis == 4 && layout == Layout::kSliced) step += 5;
    }
    memory_.reset(static_cast<T*>(::operator new(size_t(count_) * sizeof(T), kAlignment)));
    std::memset(static_cast<void*>(memory_.get()), 0xff, size_t(count_) * sizeof(T));
  }

  // In the order of the axes, whatever the layout. Gaps stay as they are.
  void fill(Random random) {
    for (int64_t b = 0; b < sizes_[0]; ++b) {
      for (int64_t k = 0; k < sizes_[1]; ++k) {
        for (int64_t c = 0; c < sizes_[2]; ++c) {
          for (int64_t y = 0; y < sizes_[3]; ++y) {
            T* row = data() + b * strides_[0] + k * strides_[1] + c * strides_[2] + y * strides_[3];
            for (int64_t x = 0; x < sizes_[4]; ++x) row[x * strides_[4]] = random.number<T>();
          }
        }
      }
    }
  }

  T* data() { return memory_.get(); }
  Strides strides() const { return {strides_[0], strides_[1], strides_[2], strides_[3], strides_[4]}; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* memory) const { ::operator delete(static_cast<void*>(memory), kAlignment); }
  };

  std::array<int64_t, 5> sizes_, strides_;
  int64_t count_;
  std::unique_ptr<T, Free> memory_;
};

}  // namespace racnn::cpu
