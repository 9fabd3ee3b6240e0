// SPDX-License-Identifier: BSD-3-Clause
//
// The 16-bit floating types of the CPU kernels: storage only, all arithmetic is in float.
#pragma once

#include <bit>
#include <cstdint>

#include "../geometry.h"

namespace racnn::cpu {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

RACNN_INLINE float to_float(BFloat16 value) { return std::bit_cast<float>(uint32_t(value.bits) << 16); }

// Round to nearest, ties to even; NaN stays NaN. Without a branch, so that loops over it vectorise.
RACNN_INLINE BFloat16 to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
  return {uint16_t((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded)};
}

#if defined(__AARCH64EL__)
// One instruction, and what compilers vectorise.
RACNN_INLINE float to_float(Half value) { return float(std::bit_cast<__fp16>(value.bits)); }
RACNN_INLINE Half to_half(float value) { return {std::bit_cast<uint16_t>(__fp16(value))}; }
#else
// By exponent arithmetic: the scaled value has the right exponent, subnormals come out normalised.
RACNN_INLINE float to_float(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16;
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  const bool special = (value.bits & 0x7c00) == 0x7c00;  // infinity, NaN
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t bits = special ? magnitude | 0x7f800000u : std::bit_cast<uint32_t>(scaled);
  return std::bit_cast<float>(bits | sign);
}

RACNN_INLINE Half to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and more round to infinity
  if (magnitude < 0x38800000) {  // subnormal: adding 1/2 aligns the mantissa, the FPU rounds
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return {uint16_t(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000))};
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000;
  return {uint16_t(sign | rounded >> 13)};
}
#endif

}  // namespace racnn::cpu
