// SPDX-License-Identifier: BSD-3-Clause
//
// Registers of the machine, by the compiler's vector extension, and what is done with whole lines of numbers.
// Included only by kernels.cpp, once per instruction set.
#pragma once

#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__AARCH64EL__)
#include <arm_neon.h>
#endif

#include "half.h"

namespace racnn::cpu::RACNN_ISA {

// Inner loops are functions of their own: in a large one the compiler keeps too little in registers.
#define RACNN_NOINLINE __attribute__((noinline))

// For loops over registers: only unrolled ones leave them in registers.
#define RACNN_UNROLL _Pragma("GCC unroll 16")

constexpr int kLanes = 16;  // rows of a cell (cells.h)

// What fits a register of the machine: sums that a loop carries along stay in registers only in this form.
#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
template <typename T>
struct RegisterOf;
template <>
struct RegisterOf<float> {
  typedef float type __attribute__((vector_size(kRegisterBytes)));
};
template <>
struct RegisterOf<double> {
  typedef double type __attribute__((vector_size(kRegisterBytes)));
};

template <typename T>
using Register = typename RegisterOf<T>::type;

template <typename T>
constexpr int kRegisterLanes = kRegisterBytes / int(sizeof(T));

template <typename T>
RACNN_INLINE Register<T> load_register(const T* from) {
  Register<T> value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
RACNN_INLINE void store_register(T* to, const Register<T>& value) {
  std::memcpy(to, &value, sizeof(value));
}

// The bits that are set in both.
template <typename Lanes>
RACNN_INLINE Lanes both(const Lanes& a, const Lanes& b) {
  typedef int32_t Bits __attribute__((vector_size(sizeof(Lanes))));
  return Lanes(Bits(a) & Bits(b));
}

// The lanes added in a fixed order.
template <typename T>
RACNN_INLINE T sum_of_lanes(const Register<T>& value) {
  T lanes[kRegisterLanes<T>];
  store_register(lanes, value);
  for (int width = kRegisterLanes<T> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// Whether none of n numbers, whole registers, is NaN or infinite, by their sum: where that overflows it may
// say no though all are.
template <typename T>
RACNN_INLINE bool all_finite(const T* values, int64_t n) {
  constexpr int64_t kOne = kRegisterLanes<T>;
  Register<T> even{}, odd{};
  int64_t i = 0;
  for (; i + 2 * kOne <= n; i += 2 * kOne) {
    even += load_register(values + i);
    odd += load_register(values + i + kOne);
  }
  if (i < n) even += load_register(values + i);
  const T total = sum_of_lanes<T>(even + odd);
  return total - total == T(0);
}

RACNN_INLINE float widen(float value) { return value; }
RACNN_INLINE double widen(double value) { return value; }
RACNN_INLINE float widen(uint8_t value) { return float(value); }
RACNN_INLINE float widen(BFloat16 value) { return to_float(value); }
RACNN_INLINE float widen(Half value) { return to_float(value); }

#if defined(__AVX2__)
constexpr int64_t kTile = 8;

// The same for a tile of kTile x kTile numbers.
RACNN_INLINE void transpose_tile(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m256 r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#elif defined(__AARCH64EL__)
constexpr int64_t kTile = 4;

RACNN_INLINE void transpose_tile(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  float64x2_t r[4];  // of pairs of numbers
  for (int i = 0; i < 4; i += 2) {
    const float32x4_t a = vld1q_f32(from + i * from_stride), b = vld1q_f32(from + (i + 1) * from_stride);
    r[i] = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    r[i + 1] = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
  }
  for (int i = 0; i < 2; ++i) {
    vst1q_f32(to + i * to_stride, vreinterpretq_f32_f64(vtrn1q_f64(r[i], r[i + 2])));
    vst1q_f32(to + (i + 2) * to_stride, vreinterpretq_f32_f64(vtrn2q_f64(r[i], r[i + 2])));
  }
}
#endif

// to[k][i] = from[i][k] for kLanes x kLanes numbers, the strides between i and between k.
template <typename T>
RACNN_INLINE void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
#if defined(__AVX2__) || defined(__AARCH64EL__)
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t i = 0; i < kLanes; i += kTile) {
      for (int64_t k = 0; k < kLanes; k += kTile) {
        transpose_tile(from + i * from_stride + k, from_stride, to + k * to_stride + i, to_stride);
      }
    }
    return;
  }
#endif
  for (int64_t i = 0; i < kLanes; i += 4) {  // in pieces, as caches and compilers like them
    for (int64_t k = 0; k < kLanes; ++k) {
      for (int64_t n = i; n < i + 4; ++n) to[k * to_stride + n] = from[n * from_stride + k];
    }
  }
}

// n numbers, `stride` elements apart, as accumulation type; tight loops that the compiler vectorises.
template <typename From, typename T>
void widen_line(const From* from, int64_t stride, int64_t n, T* to) {
  if (stride == 1) {
    int64_t i = 0;
#if defined(__F16C__)
    if constexpr (std::is_same_v<From, Half>) {
      for (; i + 8 <= n; i += 8) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
      }
    }
#endif
    for (; i < n; ++i) to[i] = widen(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = widen(from[i * stride]);
  }
}

// `n` numbers to memory, past the caches where the instruction set can; finish_streaming before others read
// them.
template <typename T>
RACNN_INLINE void stream_line(T* to, const T* from, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  constexpr int64_t kStep = 64 / sizeof(T);
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 64 != 0; ++i) to[i] = from[i];
  for (; i + kStep <= n; i += kStep) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  }
#elif defined(__AVX2__)
  constexpr int64_t kStep = 32 / sizeof(T);
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 32 != 0; ++i) to[i] = from[i];
  for (; i + kStep <= n; i += kStep) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), value);
  }
#endif
  for (; i < n; ++i) to[i] = from[i];
}

RACNN_INLINE void finish_streaming() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

}  // namespace racnn::cpu::RACNN_ISA
