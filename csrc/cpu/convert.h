// SPDX-License-Identifier: BSD-3-Clause
//
// Registers of the accumulation type from and to the dtypes of images and crops.
#pragma once

#include "vec.h"

namespace racnn::cpu::RACNN_ISA {

// A register of numbers as accumulation type.
template <typename T, typename From>
RACNN_INLINE Register<T> load_register_as(const From* from) {
  Register<T> value;
  if constexpr (std::is_same_v<From, T>) {
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<From, uint8_t>) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return Register<T>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
  }
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if constexpr (std::is_same_v<From, Half>) return Register<T>(_mm512_cvtph_ps(bits));
  if constexpr (std::is_same_v<From, BFloat16>) {
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    return Register<T>(_mm512_castsi512_ps(high));
  }
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<From, uint8_t>) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return Register<T>(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
  }
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if constexpr (std::is_same_v<From, Half>) return Register<T>(_mm256_cvtph_ps(bits));
  if constexpr (std::is_same_v<From, BFloat16>) {
    const __m256i high = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
    return Register<T>(_mm256_castsi256_ps(high));
  }
#elif defined(__AARCH64EL__)
  if constexpr (std::is_same_v<From, uint8_t>) {
    uint32_t bytes;
    std::memcpy(&bytes, from, sizeof(bytes));
    const uint16x8_t words = vmovl_u8(vcreate_u8(bytes));
    return Register<T>(vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))));
  }
  if constexpr (std::is_same_v<From, Half>) {
    return Register<T>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits))));
  }
  if constexpr (std::is_same_v<From, BFloat16>) {
    return Register<T>(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&from->bits), 16)));
  }
#else
  for (int i = 0; i < kRegisterLanes<T>; ++i) value[i] = widen(from[i]);
  return value;
#endif
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

#if defined(__AVX512F__)
RACNN_INLINE __m256i bfloat16_lanes(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value), high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i raised = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(raised, 16), nan, quiet));
}
#endif

#if defined(__AARCH64EL__)
RACNN_INLINE uint16x4_t bfloat16_lanes(float32x4_t value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t raised = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000)), is_number = vceqq_f32(value, value);
  return vshrn_n_u32(vbslq_u32(is_number, raised, quiet), 16);
}
#endif

// A register in the type of `to`. In uint8 NaN is 0: max_ps takes the second operand where the first is NaN,
// NEON's conversion to whole numbers gives 0.
template <typename T, typename To>
RACNN_INLINE void store_register_as(To* to, const Register<T>& value) {
  if constexpr (std::is_same_v<To, T>) return store_register(to, value);
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<To, Half>) {
    const __m256i bits = _mm512_cvtps_ph(__m512(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  }
  if constexpr (std::is_same_v<To, BFloat16>) {
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bfloat16_lanes(__m512(value)));
  }
  if constexpr (std::is_same_v<To, uint8_t>) {
    const __m512 raised = _mm512_max_ps(__m512(value), _mm512_setzero_ps());
    const __m512i whole = _mm512_cvtps_epi32(_mm512_min_ps(raised, _mm512_set1_ps(255.0f)));
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
  }
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<To, Half>) {
    const __m128i bits = _mm256_cvtps_ph(__m256(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bits);
  }
  if constexpr (std::is_same_v<To, BFloat16>) {
    const __m256i bits = bfloat16_lanes(__m256(value));
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
  }
  if constexpr (std::is_same_v<To, uint8_t>) {
    const __m256 raised = _mm256_max_ps(__m256(value), _mm256_setzero_ps());
    const __m256i whole = _mm256_cvtps_epi32(_mm256_min_ps(raised, _mm256_set1_ps(255.0f)));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
  }
#elif defined(__AARCH64EL__)
  if constexpr (std::is_same_v<To, Half>) {
    return vst1_u16(&to->bits, vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(value))));
  }
  if constexpr (std::is_same_v<To, BFloat16>) return vst1_u16(&to->bits, bfloat16_lanes(float32x4_t(value)));
  if constexpr (std::is_same_v<To, uint8_t>) {
    const uint16x4_t words = vqmovn_u32(vcvtnq_u32_f32(float32x4_t(value)));
    const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, vdup_n_u16(0)));
    std::memcpy(to, &bytes, sizeof(*to) * kRegisterLanes<T>);
    return;
  }
#endif
  T lanes[kRegisterLanes<T>];
  store_register(lanes, value);
  for (int i = 0; i < kRegisterLanes<T>; ++i) narrow(lanes[i], to + i);
}

// The first `count` lanes of a register, in the type of `to`.
template <typename T, typename To>
RACNN_INLINE void store_lanes(To* to, const Register<T>& value, int64_t count) {
  if (count >= kRegisterLanes<T>) return store_register_as<T>(to, value);
  To lanes[kRegisterLanes<T>];
  store_register_as<T>(lanes, value);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

template <typename To, typename T>
void fill_row(T value, int64_t n, To* to) {
  for (int64_t e = 0; e < n; ++e) narrow(value, to + e);
}

// A line in the type of `to`.
template <typename T, typename To>
RACNN_INLINE void store_line(To* to, const T* line, int64_t n) {
  int64_t e = 0;
  for (; e + kRegisterLanes<T> <= n; e += kRegisterLanes<T>) {
    store_register_as<T>(to + e, load_register(line + e));
  }
  for (; e < n; ++e) narrow(line[e], to + e);
}

}  // namespace racnn::cpu::RACNN_ISA
