// SPDX-License-Identifier: BSD-3-Clause
//
// Vectors of 16 numbers, with the compiler's vector extension, and the conversions between the image's
// dtype and the accumulation type. Included only by kernels.cpp, once per instruction set.
#pragma once

#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "half.h"

namespace racnn::cpu::RACNN_ISA {

constexpr int kLanes = 16;

template <typename T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kLanes * sizeof(float))));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kLanes * sizeof(double))));
};
template <typename T>
using Vec = typename VecOf<T>::type;

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
constexpr int kRegisterLanes = kRegisterBytes / int(sizeof(T));

template <typename T>
RACNN_INLINE Vec<T> load(const T* from) {
  Vec<T> value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
RACNN_INLINE void store(T* to, const Vec<T>& value) {
  std::memcpy(to, &value, sizeof(value));
}

template <typename T>
RACNN_INLINE Vec<T> splat(T value) {
  return value - Vec<T>{};
}

// The lanes added in a fixed order.
template <typename T>
RACNN_INLINE T sum(const Vec<T>& value) {
  T halves[kLanes];
  store(halves, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) halves[i] += halves[i + width];
  }
  return halves[0];
}

// Whether no number is NaN or infinite, by their sum: where that overflows it may say no though all are.
template <typename T>
RACNN_INLINE bool all_finite(const T* values, int64_t n) {
  using Register = typename RegisterOf<T>::type;
  constexpr int64_t kSums = 4, kWidth = sizeof(Register) / sizeof(T), kStep = kSums * kWidth;
  T total = T(0);
  Register sums[kSums] = {};
  if (n < kStep) {
    for (int64_t i = 0; i < n; ++i) total += values[i];
  } else {
    for (int64_t i = 0; i < n; i += kStep) {
      const T* from = values + (i < n - kStep ? i : n - kStep);
      for (int64_t s = 0; s < kSums; ++s) {
        Register value;
        std::memcpy(&value, from + s * kWidth, sizeof(value));
        sums[s] += value;
      }
    }
  }
  const Register all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int64_t i = 0; i < kWidth; ++i) total += all[i];
  return total - total == T(0);
}

RACNN_INLINE float widen(float value) { return value; }
RACNN_INLINE double widen(double value) { return value; }
RACNN_INLINE float widen(uint8_t value) { return float(value); }
RACNN_INLINE float widen(BFloat16 value) { return to_float(value); }
RACNN_INLINE float widen(Half value) { return to_float(value); }

#if defined(__AVX2__)
RACNN_INLINE void transpose_8(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
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
#endif

// A register of numbers as accumulation type.
template <typename T, typename From>
RACNN_INLINE typename RegisterOf<T>::type load_register_as(const From* from) {
  typename RegisterOf<T>::type value;
  if constexpr (std::is_same_v<From, T>) {
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<From, uint8_t>) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return typename RegisterOf<T>::type(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
  }
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if constexpr (std::is_same_v<From, Half>) return typename RegisterOf<T>::type(_mm512_cvtph_ps(bits));
  if constexpr (std::is_same_v<From, BFloat16>) {
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    return typename RegisterOf<T>::type(_mm512_castsi512_ps(high));
  }
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<From, uint8_t>) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return typename RegisterOf<T>::type(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
  }
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if constexpr (std::is_same_v<From, Half>) return typename RegisterOf<T>::type(_mm256_cvtph_ps(bits));
  if constexpr (std::is_same_v<From, BFloat16>) {
    const __m256i high = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
    return typename RegisterOf<T>::type(_mm256_castsi256_ps(high));
  }
#else
  for (int i = 0; i < kRegisterLanes<T>; ++i) value[i] = widen(from[i]);
  return value;
#endif
}

// to[k][i] = from[i][k] for kLanes x kLanes numbers, the strides between i and between k.
template <typename T>
RACNN_INLINE void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t i = 0; i < kLanes; i += 8) {
      for (int64_t k = 0; k < kLanes; k += 8) {
        transpose_8(from + i * from_stride + k, from_stride, to + k * to_stride + i, to_stride);
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

RACNN_INLINE void narrow(float value, float* to) { *to = value; }
RACNN_INLINE void narrow(double value, double* to) { *to = value; }
RACNN_INLINE void narrow(float value, BFloat16* to) { *to = to_bfloat16(value); }
RACNN_INLINE void narrow(float value, Half* to) { *to = to_half(value); }

// Saturated, ties to even, NaN to 0: adding 1.5 * 2^23 leaves the whole number in the lowest bits.
RACNN_INLINE void narrow(float value, uint8_t* to) {
  const float raised = value > 0.0f ? value : 0.0f;
  const float limited = raised < 255.0f ? raised : 255.0f;
  *to = uint8_t(std::bit_cast<uint32_t>(limited + 12582912.0f));
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

#if defined(__AVX2__)
// to_bfloat16 of eight lanes, each in the low half of 32 bits: compilers do not find it in a loop.
RACNN_INLINE __m256i bfloat16_lanes(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value), high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}
#endif

#if defined(__SSE2__)
// `narrow` of four lanes, in 32 bits each; max_ps takes the second operand where the first is NaN.
RACNN_INLINE __m128i uint8_lanes(const float* from) {
  const __m128 raised = _mm_max_ps(_mm_loadu_ps(from), _mm_setzero_ps());
  return _mm_cvtps_epi32(_mm_min_ps(raised, _mm_set1_ps(255.0f)));
}
#endif

// A whole vector, in the type of `to`.
template <typename T, typename To>
RACNN_INLINE void store_as(To* to, const Vec<T>& value) {
  if constexpr (std::is_same_v<To, T>) return store(to, value);
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<To, Half>) {
    const __m256i bits = _mm512_cvtps_ph(__m512(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  }
#elif defined(__F16C__)
  if constexpr (std::is_same_v<To, Half>) {
    __m256 halves[2];
    std::memcpy(halves, &value, sizeof(halves));
    for (int i = 0; i < 2; ++i) {
      const __m128i bits = _mm256_cvtps_ph(halves[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to) + i, bits);
    }
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (std::is_same_v<To, BFloat16>) {
    __m256 halves[2];
    std::memcpy(halves, &value, sizeof(halves));
    // Packing works within halves of a register: 0 2 1 3 puts the quarters in order.
    const __m256i packed = _mm256_packus_epi32(bfloat16_lanes(halves[0]), bfloat16_lanes(halves[1]));
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
  }
#endif
  T lanes[kLanes];
  store(lanes, value);
#if defined(__SSE2__)
  if constexpr (std::is_same_v<To, uint8_t>) {
    const __m128i front = _mm_packs_epi32(uint8_lanes(lanes), uint8_lanes(lanes + 4));
    const __m128i back = _mm_packs_epi32(uint8_lanes(lanes + 8), uint8_lanes(lanes + 12));
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(front, back));
  }
#endif
  for (int i = 0; i < kLanes; ++i) narrow(lanes[i], to + i);
}

// The first `count` lanes of a vector, in the type of `to`.
template <typename T, typename To>
RACNN_INLINE void store_lanes(To* to, const Vec<T>& value, int64_t count) {
  if (count >= kLanes) return store_as<T>(to, value);
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<To, float>) {
    return _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), __m512(value));
  }
#endif
  To lanes[kLanes];
  store_as<T>(lanes, value);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

}  // namespace racnn::cpu::RACNN_ISA
