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
  int64_t pixels;   // outputs
  int64_t step;     // numbers a pixel
  int64_t taps;
  int64_t length;   // numbers in a line
  int32_t* first;   // [pixels] or, expanded, [pixels * step] relative to the block's base
  int32_t* base;    // [blocks]; expanded only
  bool* near;       // [blocks]: all that the block reads lies within 2 * kBlock numbers from its base
  int64_t stride;   // between the weights of two taps

  bool wide() const { return step >= kWidePixel; }
  int64_t size() const { return pixels * step; }
  int64_t entries() const { return wide() ? pixels : size(); }
};

// `first` in pixels, `length` in pixels.
template <typename T>
Band<T> make_band(Arena& arena, const int32_t* first, int64_t pixels, int64_t step, int64_t taps, int64_t length) {
  Band<T> band{pixels, step, taps, length * step, nullptr, nullptr, nullptr, 0};
  const int64_t entries = band.entries();
  const int64_t blocks = (entries + kBlock - 1) / kBlock;
  band.stride = blocks * kBlock;
  band.first = arena.take<int32_t>(band.stride);
  if (band.wide()) {
    for (int64_t i = 0; i < pixels; ++i) band.first[i] = first[i];
    return band;
  }
  band.base = arena.take<int32_t>(blocks);
  band.near = arena.take<bool>(blocks);
  for (int64_t i = 0, e = 0; i < pixels; ++i) {
    for (int64_t c = 0; c < step; ++c) band.first[e++] = int32_t(first[i] * step + c);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    int32_t* index = band.first + b * kBlock;
    const int64_t count = entries - b * kBlock < kBlock ? entries - b * kBlock : kBlock;
    int32_t low = index[0], high = index[0];
    for (int64_t i = 1; i < count; ++i) {
      low = index[i] < low ? index[i] : low;
      high = index[i] > high ? index[i] : high;
    }
    for (int64_t i = 0; i < kBlock; ++i) index[i] = i < count ? index[i] - low : 0;
    band.base[b] = low;
    band.near[b] = high - low + (taps - 1) * step < 2 * kBlock;
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
  for (int s = 0; s < kSets; ++s) std::memcpy(out[s] + block * kBlock, total[s], sizeof(total[s]));
}

#if defined(__AVX512F__)
RACNN_INLINE __m512 load_limited(const float* from, int64_t count) {
  if (count >= 16) return _mm512_loadu_ps(from);
  return count > 0 ? _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from) : _mm512_setzero_ps();
}

template <int kSets>
RACNN_INLINE void contract_near(const Band<float>& band, int64_t block, const float* line,
                                const float* const (&weights)[kSets], float* const (&out)[kSets]) {
  const int32_t base = band.base[block];
  const __m512 low = load_limited(line + base, band.length - base);
  const __m512 high = load_limited(line + base + 16, band.length - base - 16);
  __m512i index = _mm512_loadu_si512(band.first + block * 16);
  const __m512i step = _mm512_set1_epi32(int32_t(band.step));
  __m512 total[kSets];
  for (int s = 0; s < kSets; ++s) total[s] = _mm512_setzero_ps();
  for (int64_t t = 0; t < band.taps; ++t) {
    const __m512 value = _mm512_permutex2var_ps(low, index, high);
    for (int s = 0; s < kSets; ++s) {
      total[s] = _mm512_fmadd_ps(_mm512_loadu_ps(weights[s] + t * band.stride + block * 16), value, total[s]);
    }
    index = _mm512_add_epi32(index, step);
  }
  for (int s = 0; s < kSets; ++s) _mm512_storeu_ps(out[s] + block * 16, total[s]);
}
#elif defined(__AVX2__)
RACNN_INLINE __m256 load_limited(const float* from, int64_t count) {
  if (count >= 8) return _mm256_loadu_ps(from);
  if (count <= 0) return _mm256_setzero_ps();
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(count)), lane));
}

template <int kSets>
RACNN_INLINE void contract_near(const Band<float>& band, int64_t block, const float* line,
                                const float* const (&weights)[kSets], float* const (&out)[kSets]) {
  const int32_t base = band.base[block];
  const __m256 low = load_limited(line + base, band.length - base);
  const __m256 high = load_limited(line + base + 8, band.length - base - 8);
  __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(band.first + block * 8));
  const __m256i step = _mm256_set1_epi32(int32_t(band.step));
  __m256 total[kSets];
  for (int s = 0; s < kSets; ++s) total[s] = _mm256_setzero_ps();
  for (int64_t t = 0; t < band.taps; ++t) {
    // Bit 3 of an index says which register, the permutation looks at bits 0 to 2: shift it to the sign.
    const __m256 in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    const __m256 value = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index),
                                          _mm256_permutevar8x32_ps(high, index), in_high);
    for (int s = 0; s < kSets; ++s) {
      total[s] = _mm256_fmadd_ps(_mm256_loadu_ps(weights[s] + t * band.stride + block * 8), value, total[s]);
    }
    index = _mm256_add_epi32(index, step);
  }
  for (int s = 0; s < kSets; ++s) _mm256_storeu_ps(out[s] + block * 8, total[s]);
}
#endif

// One wide pixel: the same weights for all its channels.
template <int kSets, typename T>
void contract_pixel(const Band<T>& band, int64_t pixel, const T* line, const T* const (&weights)[kSets],
                    T* const (&out)[kSets]) {
  const T* from = line + int64_t(band.first[pixel]) * band.step;
  for (int s = 0; s < kSets; ++s) {
    T* to = out[s] + pixel * band.step;
    for (int64_t t = 0; t < band.taps; ++t) {
      const T w = weights[s][t * band.stride + pixel];
      const T* value = from + t * band.step;
      if (t == 0) {
        for (int64_t c = 0; c < band.step; ++c) to[c] = w * value[c];
      } else if (w != T(0)) {
        for (int64_t c = 0; c < band.step; ++c) to[c] += w * value[c];
      }
    }
  }
}

// out[s][e] for all e; a vector's worth of numbers behind out[s][size - 1] may be overwritten.
template <int kSets, typename T>
void contract(const Band<T>& band, const T* line, const T* const (&weights)[kSets], T* const (&out)[kSets]) {
  if (band.wide()) {
    for (int64_t i = 0; i < band.pixels; ++i) contract_pixel<kSets>(band, i, line, weights, out);
    return;
  }
  for (int64_t b = 0; b * kBlock < band.size(); ++b) {
#if defined(__AVX2__)
    if constexpr (std::is_same_v<T, float>) {
      if (band.near[b]) {
        contract_near<kSets>(band, b, line, weights, out);
        continue;
      }
    }
#endif
    contract_scalar<kSets>(band, b, line, weights, out);
  }
}

}  // namespace racnn::cpu::RACNN_ISA
