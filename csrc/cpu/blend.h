// SPDX-License-Identifier: BSD-3-Clause
//
// The vertical primitive, a weighted sum of lines that lie a stride apart.
#pragma once

#include "convert.h"
#include "units.h"

namespace racnn::cpu::RACNN_ISA {

// What becomes of a sum before it is stored: scale[e] * sum + shift[e] * weights. Null: as it is.
template <typename T, int kSets>
struct LineAffine {
  const T* scale = nullptr;
  const T* shift = nullptr;
  T weights[kSets] = {};  // the sum of each set
};

// Rows that will be read before long: fetched from memory on the way, a piece for each piece that is blended.
// Each row is a short piece of memory far from the next: the hardware does not see it coming, and all at once
// they would wait for one another. Into the second level of the cache, which has room for more requests.
template <typename From>
struct RowsAhead {
  const From* from = nullptr;  // where the line begins in the first
  int32_t count = 0;

  RACNN_INLINE void fetch(int64_t stride, int64_t begin, int64_t numbers) const {
    for (int32_t k = 0; k < count; ++k) {
      const char* line = reinterpret_cast<const char*>(from + k * stride + begin);
      for (int64_t at = 0; at < numbers * int64_t(sizeof(From)); at += kCacheLine)
        __builtin_prefetch(line + at, 0, 2);
    }
  }
};

// to[s][e] = sum over k < count of weights[s][k] * from[k * stride + e], for registers of e. Few sums at a
// time would wait for one another: even and odd k are added up apart.
template <int kRegisters, int kCount, bool kAffine, int kSets, typename From, typename T>
RACNN_INLINE void blend_registers(const From* from, int64_t stride, int64_t count,
                                  const T* const (&weights)[kSets], T* const (&to)[kSets], int64_t e,
                                  const LineAffine<T, kSets>& affine = {}) {
  constexpr int kApart = kCount == 0 && kRegisters * kSets < 4 ? 2 : 1;
  Register<T> sums[kApart][kSets][kRegisters] = {};
  const auto add = [&](int64_t k, int apart) RACNN_INLINED {
    const From* line = from + k * stride + e;
    RACNN_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
      const Register<T> value = load_register_as<T>(line + r * kRegisterLanes<T>);
      RACNN_UNROLL
      for (int s = 0; s < kSets; ++s) sums[apart][s][r] += weights[s][k] * value;
    }
  };
  if constexpr (kCount > 0) {
    RACNN_UNROLL
    for (int k = 0; k < kCount; ++k) add(k, 0);
  } else {
    int64_t k = 0;
    for (; k + kApart <= count; k += kApart) {
      RACNN_UNROLL
      for (int apart = 0; apart < kApart; ++apart) add(k + apart, apart);
    }
    if (k < count) add(k, 0);
  }
  RACNN_UNROLL
  for (int s = 0; s < kSets; ++s) {
    RACNN_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
      Register<T>& sum = sums[0][s][r];
      if constexpr (kApart == 2) sum += sums[1][s][r];
      const int64_t at = e + r * kRegisterLanes<T>;
      if constexpr (kAffine) {
        sum = sum * load_register(affine.scale + at) + affine.weights[s] * load_register(affine.shift + at);
      }
      store_register(to[s] + at, sum);
    }
  }
}

template <int kSets>
constexpr int kBlendedTogether = kSets == 1 ? 4 : 2;  // registers: what keeps the sums in them

// The same for e < n, n in whole registers.
template <int kCount, bool kAffine, int kSets, typename From, typename T>
RACNN_INLINE void blend_counted(const From* from, int64_t stride, int64_t count,
                                const T* const (&weights)[kSets], T* const (&to)[kSets], int64_t n,
                                const LineAffine<T, kSets>& affine, const RowsAhead<From>& ahead = {}) {
  constexpr int kMany = kBlendedTogether<kSets>;
  constexpr int64_t kOne = kRegisterLanes<T>;
  const RowsAhead<From> next = ahead;  // copies that no store can change: they stay in registers
  const T* by[kSets];
  T* sums[kSets];
  RACNN_UNROLL
  for (int s = 0; s < kSets; ++s) {
    by[s] = weights[s];
    sums[s] = to[s];
  }
  int64_t e = 0;
  for (; e + kMany * kOne <= n; e += kMany * kOne) {
    next.fetch(stride, e, kMany * kOne);
    blend_registers<kMany, kCount, kAffine>(from, stride, count, by, sums, e, affine);
  }
  next.fetch(stride, e, n - e);
  for (; e < n; e += kOne) blend_registers<1, kCount, kAffine>(from, stride, count, by, sums, e, affine);
}

template <bool kAffine, int kSets, typename From, typename T>
RACNN_NOINLINE void blend_lines(const From* from, int64_t stride, int64_t count,
                                const T* const (&weights)[kSets], T* const (&to)[kSets], int64_t n,
                                const LineAffine<T, kSets>& affine, const RowsAhead<From>& ahead) {
  if (count == 2) return blend_counted<2, kAffine>(from, stride, count, weights, to, n, affine, ahead);
  blend_counted<0, kAffine>(from, stride, count, weights, to, n, affine, ahead);
}

template <int kSets, typename From, typename T>
void blend_whole(const From* from, int64_t stride, int64_t count, const T* const (&weights)[kSets],
                 T* const (&to)[kSets], int64_t n, const LineAffine<T, kSets>& affine,
                 const RowsAhead<From>& ahead) {
  affine.scale == nullptr ? blend_lines<false>(from, stride, count, weights, to, n, affine, ahead)
                          : blend_lines<true>(from, stride, count, weights, to, n, affine, ahead);
}

// The same for any n; nothing is read behind the lines.
template <int kSets, typename From, typename T>
RACNN_INLINE void blend(const From* from, int64_t stride, int64_t count, const T* const (&weights)[kSets],
                        T* const (&to)[kSets], int64_t n) {
  constexpr int64_t kOne = kRegisterLanes<T>;
  const int64_t whole = n / kOne * kOne;
  blend_counted<0, false>(from, stride, count, weights, to, whole, {});
  if (whole == n) return;
  if (n >= kOne)
    return blend_registers<1, 0, false>(from, stride, count, weights, to, n - kOne);  // once more
  for (int64_t e = 0; e < n; ++e) {
    for (int s = 0; s < kSets; ++s) {
      T sum = T(0);
      for (int64_t k = 0; k < count; ++k) sum += weights[s][k] * T(widen(from[k * stride + e]));
      to[s][e] = sum;
    }
  }
}

}  // namespace racnn::cpu::RACNN_ISA
