// SPDX-License-Identifier: BSD-3-Clause
//
// The one horizontal primitive, a banded contraction of a line of pixels:
//
//     out[e] = sum over t < taps of weight[t][e] * line[first[e] + t * step]
//
// The forward uses it with two taps, its transpose (the image gradient) with a few more, the window gradient
// with several weight sets at once. A line holds `step` interleaved numbers a pixel: 1 in a plane, C in a
// channels_last image. Neighbouring outputs read neighbouring pixels, so a block of outputs finds its inputs
// in two registers and needs a permutation where others gather.
#pragma once

#include "arena.h"
#include "vec.h"

namespace racnn::cpu::RACNN_ISA {

#if defined(__AVX512F__)
constexpr int kBlock = 16;  // outputs that share a base
#else
constexpr int kBlock = 8;
#endif

// Wider pixels are contracted pixel by pixel, vectorised over their channels.
constexpr int64_t kWidePixel = 16;

template <typename T>
struct Band {
  int64_t pixels;  // outputs
  int64_t step;    // numbers a pixel
  int64_t taps;
  int64_t length;  // numbers in a line
  int32_t* first;  // [pixels] or, expanded, [pixels * step] relative to the block's base
  int64_t* base;   // [blocks]: the lowest number that it reads; expanded only
  bool* near;      // [blocks]: all that the block reads lies within 2 * kBlock numbers from its base
  int64_t whole;   // blocks at the front that are near, full, and 2 * kBlock numbers from the line's end
  int64_t stride;  // between the weights of two taps

  bool wide() const { return step >= kWidePixel; }
  int64_t size() const { return pixels * step; }
  int64_t entries() const { return wide() ? pixels : size(); }
};

// `first` in pixels, `length` in pixels.
template <typename T>
Band<T> make_band(Arena& arena, const int32_t* first, int64_t pixels, int64_t step, int64_t taps,
                  int64_t length) {
  Band<T> band{pixels, step, taps, length * step, nullptr, nullptr, nullptr, 0, 0};
  const int64_t entries = band.entries();
  const int64_t blocks = (entries + kBlock - 1) / kBlock;
  band.stride = blocks * kBlock;
  band.first = arena.take<int32_t>(band.stride);
  if (band.wide()) {
    for (int64_t i = 0; i < pixels; ++i) band.first[i] = first[i];
    return band;
  }
  band.base = arena.take<int64_t>(blocks);
  band.near = arena.take<bool>(blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kBlock, end = entries < begin + kBlock ? entries : begin + kBlock;
    const auto number = [&](int64_t e) { return first[e / step] * step + e % step; };
    int64_t low = number(begin), high = low;
    for (int64_t e = begin + 1; e < end; ++e) {
      low = number(e) < low ? number(e) : low;
      high = number(e) > high ? number(e) : high;
    }
    for (int64_t e = begin; e < begin + kBlock; ++e) band.first[e] = e < end ? int32_t(number(e) - low) : 0;
    band.base[b] = low;
    band.near[b] = high - low + (taps - 1) * step < 2 * kBlock;
    const bool full = end == begin + kBlock && low + 2 * kBlock <= band.length;
    if (band.whole == b && band.near[b] && full) ++band.whole;
  }
  return band;
}

// Room for the weights of `band`, zero.
template <typename T>
T* make_weights(Arena& arena, const Band<T>& band) {
  T* weights = arena.take<T>(band.taps * band.stride);
  for (int64_t i = 0; i < band.taps * band.stride; ++i) weights[i] = T(0);
  return weights;
}

template <typename T>
RACNN_INLINE void set_weight(const Band<T>& band, T* weights, int64_t pixel, int64_t tap, T value) {
  T* row = weights + tap * band.stride;
  if (band.wide()) {
    row[pixel] = value;
  } else {
    for (int64_t c = 0; c < band.step; ++c) row[pixel * band.step + c] = value;
  }
}

// Any type, any instruction set.
template <int kSets, typename T>
void contract_scalar(const Band<T>& band, int64_t block, const T* line, const T* const (&weights)[kSets],
                     T* const (&out)[kSets]) {
  const int32_t* index = band.first + block * kBlock;
  const T* from = line + band.base[block];
  T total[kSets][kBlock] = {};
  for (int64_t t = 0; t < band.taps; ++t) {
    T value[kBlock];
    for (int i = 0; i < kBlock; ++i) value[i] = from[index[i] + t * band.step];
    for (int s = 0; s < kSets; ++s) {
      const T* w = weights[s] + t * band.stride + block * kBlock;
      for (int i = 0; i < kBlock; ++i) total[s][i] += w[i] * value[i];
    }
  }
  for (int s = 0; s < kSets; ++s) {
    for (int64_t i = band.size() - block * kBlock; i < kBlock; ++i) total[s][i] = T(0);
    std::memcpy(out[s] + block * kBlock, total[s], sizeof(total[s]));
  }
}

#if defined(__AVX512F__)
using Register = __m512;
using IndexRegister = __m512i;

RACNN_INLINE Register load_register(const float* from) { return _mm512_loadu_ps(from); }
RACNN_INLINE void store_register(float* to, Register value) { _mm512_storeu_ps(to, value); }
RACNN_INLINE Register zero_register() { return _mm512_setzero_ps(); }
RACNN_INLINE IndexRegister load_index(const int32_t* from) { return _mm512_loadu_si512(from); }
RACNN_INLINE IndexRegister splat_index(int32_t value) { return _mm512_set1_epi32(value); }
RACNN_INLINE IndexRegister add(IndexRegister a, IndexRegister b) { return _mm512_add_epi32(a, b); }
RACNN_INLINE Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }

// `count` numbers and zeros behind them.
RACNN_INLINE Register load_limited(const float* from, int64_t count) {
  if (count >= kBlock) return load_register(from);
  return count > 0 ? _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from) : zero_register();
}

RACNN_INLINE Register first_lanes(Register value, int64_t count) {
  return count >= kBlock ? value : _mm512_maskz_mov_ps(__mmask16((1u << count) - 1), value);
}

RACNN_INLINE Register gather(const float* from, IndexRegister index) {
  return _mm512_i32gather_ps(index, from, sizeof(float));
}

// Of the 2 * kBlock numbers in `low` and `high`, those at `index`.
RACNN_INLINE Register permute(Register low, Register high, IndexRegister index) {
  return _mm512_permutex2var_ps(low, index, high);
}
#elif defined(__AVX2__)
using Register = __m256;
using IndexRegister = __m256i;

RACNN_INLINE Register load_register(const float* from) { return _mm256_loadu_ps(from); }
RACNN_INLINE void store_register(float* to, Register value) { _mm256_storeu_ps(to, value); }
RACNN_INLINE Register zero_register() { return _mm256_setzero_ps(); }
RACNN_INLINE IndexRegister load_index(const int32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
RACNN_INLINE IndexRegister splat_index(int32_t value) { return _mm256_set1_epi32(value); }
RACNN_INLINE IndexRegister add(IndexRegister a, IndexRegister b) { return _mm256_add_epi32(a, b); }
RACNN_INLINE Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }

RACNN_INLINE __m256i lane_mask(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(count)), lane);
}

RACNN_INLINE Register load_limited(const float* from, int64_t count) {
  if (count >= kBlock) return load_register(from);
  return count > 0 ? _mm256_maskload_ps(from, lane_mask(count)) : zero_register();
}

RACNN_INLINE Register first_lanes(Register value, int64_t count) {
  return count >= kBlock ? value : _mm256_and_ps(value, _mm256_castsi256_ps(lane_mask(count)));
}

RACNN_INLINE Register gather(const float* from, IndexRegister index) {
  return _mm256_i32gather_ps(from, index, sizeof(float));
}

// Bit 3 of an index says which register, the permutation looks at bits 0 to 2: shift it to the sign.
RACNN_INLINE Register permute(Register low, Register high, IndexRegister index) {
  const __m256 in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index),
                          in_high);
}
#endif

#if defined(__AVX2__)
// Where a block's inputs come from: two registers loaded whole, two that end with the line, or one gather a
// tap for a block that reads farther than two registers reach.
enum class Source { kWhole, kLimited, kGather };

// kTaps = 0: as many as the band says.
template <int kSets, int kTaps, Source kSource>
RACNN_INLINE void contract_block(const Band<float>& band, int64_t block, const float* line,
                                 const float* const (&weights)[kSets], float* const (&out)[kSets]) {
  const int64_t base = band.base[block], at = block * kBlock;
  const float* from = line + base;
  Register low, high;
  if constexpr (kSource == Source::kWhole) {
    low = load_register(from), high = load_register(from + kBlock);
  } else if constexpr (kSource == Source::kLimited) {
    low = load_limited(from, band.length - base);
    high = load_limited(from + kBlock, band.length - base - kBlock);
  }
  IndexRegister index = load_index(band.first + at);
  const IndexRegister step = splat_index(int32_t(band.step));
  Register total[kSets];
  for (Register& t : total) t = zero_register();
  const int64_t taps = kTaps > 0 ? kTaps : band.taps;
  for (int64_t t = 0; t < taps; ++t) {
    Register value;
    if constexpr (kSource == Source::kGather) {
      value = gather(from, index);
    } else {
      value = permute(low, high, index);
    }
    for (int s = 0; s < kSets; ++s) {
      total[s] = multiply_add(load_register(weights[s] + t * band.stride + at), value, total[s]);
    }
    index = add(index, step);
  }
  for (int s = 0; s < kSets; ++s) {
    if constexpr (kSource != Source::kWhole) total[s] = first_lanes(total[s], band.size() - at);
    store_register(out[s] + at, total[s]);
  }
}

template <int kSets, int kTaps>
void contract_blocks(const Band<float>& band, const float* line, const float* const (&weights)[kSets],
                     float* const (&out)[kSets]) {
  int64_t b = 0;
  for (; b < band.whole; ++b) contract_block<kSets, kTaps, Source::kWhole>(band, b, line, weights, out);
  for (; b * kBlock < band.size(); ++b) {
    if (band.near[b]) {
      contract_block<kSets, kTaps, Source::kLimited>(band, b, line, weights, out);
    } else {
      contract_block<kSets, kTaps, Source::kGather>(band, b, line, weights, out);
    }
  }
}
#endif

// One wide pixel: the same weights, `stride` apart, for all its channels.
template <typename T>
void contract_pixel(const T* weights, int64_t stride, int64_t taps, const T* from, int64_t step, T* to) {
  if (taps == 2) {
    const T lower = weights[0], upper = weights[stride];
    for (int64_t c = 0; c < step; ++c) to[c] = lower * from[c] + upper * from[step + c];
    return;
  }
  for (int64_t c = 0; c < step; ++c) to[c] = weights[0] * from[c];
  for (int64_t t = 1; t < taps; ++t) {
    const T w = weights[t * stride];
    const T* value = from + t * step;
    for (int64_t c = 0; c < step; ++c) to[c] += w * value[c];
  }
}

// out[s][e] for all e; up to a block behind out[s][size - 1] is overwritten, with zeros.
template <int kSets, typename T>
void contract(const Band<T>& band, const T* line, const T* const (&weights)[kSets], T* const (&out)[kSets]) {
  if (band.wide()) {
    for (int64_t i = 0; i < band.pixels; ++i) {
      const T* from = line + int64_t(band.first[i]) * band.step;
      for (int s = 0; s < kSets; ++s) {
        contract_pixel(weights[s] + i, band.stride, band.taps, from, band.step, out[s] + i * band.step);
      }
    }
    return;
  }
#if defined(__AVX2__)
  if constexpr (std::is_same_v<T, float>) {
    // The usual numbers of taps as constants: two in a crop, up to four in its transpose.
    if (band.taps == 2) return contract_blocks<kSets, 2>(band, line, weights, out);
    if (kSets == 1 && band.taps == 3) return contract_blocks<kSets, 3>(band, line, weights, out);
    if (kSets == 1 && band.taps == 4) return contract_blocks<kSets, 4>(band, line, weights, out);
    return contract_blocks<kSets, 0>(band, line, weights, out);
  }
#endif
  for (int64_t b = 0; b * kBlock < band.size(); ++b) contract_scalar<kSets>(band, b, line, weights, out);
}

}  // namespace racnn::cpu::RACNN_ISA
