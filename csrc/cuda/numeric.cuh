// SPDX-License-Identifier: BSD-3-Clause
//
// Numbers on their way between memory and the accumulation type: conversions, and loads and stores of several
// neighbouring elements as one word of up to 16 bytes.
#pragma once

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "runtime.cuh"

namespace racnn {

template <typename T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

template <typename T, typename From>
__device__ __forceinline__ T widen(From value) {
  if constexpr (std::is_same_v<From, __half>) {
    return __half2float(value);
  } else if constexpr (std::is_same_v<From, __nv_bfloat16>) {
    return __bfloat162float(value);
  } else {
    return T(value);
  }
}

// Rounds to nearest even. uint8: saturates, NaN becomes 0.
template <typename To, typename T>
__device__ __forceinline__ To narrow(T value) {
  if constexpr (std::is_same_v<To, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<To, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else if constexpr (std::is_same_v<To, uint8_t>) {
    const T raised = value > T(0) ? value : T(0);
    return static_cast<uint8_t>(std::rint(raised < T(255) ? raised : T(255)));
  } else {
    return value;
  }
}

template <typename T>
__device__ __forceinline__ const T* add_bytes(const T* pointer, int64_t bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(pointer) + bytes);
}

template <int kBytes>
using WordOf = std::conditional_t<
    kBytes == 16, uint4,
    std::conditional_t<kBytes == 8, uint2,
                       std::conditional_t<kBytes == 4, unsigned int,
                                          std::conditional_t<kBytes == 2, unsigned short, unsigned char>>>>;

// kCount neighbouring elements, moved as one word: their address must be a multiple of its size.
template <typename T, int kCount>
struct Pack {
  T values[kCount];
};

// For memory that no thread writes while the kernel runs.
template <int kCount, typename T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* from) {
  using Word = WordOf<kCount * sizeof(T)>;
  const Word word = __ldg(reinterpret_cast<const Word*>(from));
  Pack<T, kCount> pack;
  std::memcpy(&pack, &word, sizeof(word));
  return pack;
}

template <int kCount, typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, kCount>& pack) {
  using Word = WordOf<kCount * sizeof(T)>;
  Word word;
  std::memcpy(&word, &pack, sizeof(word));
  *reinterpret_cast<Word*>(to) = word;
}

// Whether packs of kCount elements along an axis of unit stride can start at every multiple of kCount of it,
// for any position along the other axes.
template <int kCount, typename T>
bool can_pack(const T* data, int64_t extent, std::initializer_list<int64_t> other_strides) {
  bool aligned = extent % kCount == 0 && reinterpret_cast<uintptr_t>(data) % (kCount * sizeof(T)) == 0;
  for (const int64_t stride : other_strides) aligned = aligned && stride % kCount == 0;
  return aligned;
}

}  // namespace racnn
