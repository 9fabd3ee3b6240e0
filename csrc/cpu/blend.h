// SPDX-License-Identifier: BSD-3-Clause
//
// The vertical primitive, a weighted sum of lines that lie a stride apart.
#pragma once

#include "vec.h"

namespace racnn::cpu::RACNN_ISA {

// to[s][e] = sum over k < count of weights[s][k] * from[k * stride + e], for registers of e. Few sums at a
// time would wait for one another: even and odd k are added up apart.
template <int kRegisters, int kSets, typename From, typename T>
RACNN_INLINE void blend_registers(const From* from, int64_t stride, int64_t count,
                                  const T* const (&weights)[kSets], T* const (&to)[kSets], int64_t e) {
  using Register = typename RegisterOf<T>::type;
  constexpr int kApart = kRegisters * kSets < 4 ? 2 : 1;
  Register sums[kApart][kSets][kRegisters] = {};
  const auto add = [&](int64_t k, int apart) {
    const From* line = from + k * stride + e;
    for (int r = 0; r < kRegisters; ++r) {
      const Register value = load_register_as<T>(line + r * kRegisterLanes<T>);
      for (int s = 0; s < kSets; ++s) sums[apart][s][r] += weights[s][k] * value;
    }
  };
  int64_t k = 0;
  for (; k + kApart <= count; k += kApart) {
    for (int apart = 0; apart < kApart; ++apart) add(k + apart, apart);
  }
  if (k < count) add(k, 0);
  for (int s = 0; s < kSets; ++s) {
    for (int r = 0; r < kRegisters; ++r) {
      if constexpr (kApart == 2) sums[0][s][r] += sums[1][s][r];
      std::memcpy(to[s] + e + r * kRegisterLanes<T>, &sums[0][s][r], sizeof(Register));
    }
  }
}

// The same for e < n; nothing is read behind the lines.
template <int kSets, typename From, typename T>
RACNN_INLINE void blend(const From* from, int64_t stride, int64_t count, const T* const (&weights)[kSets],
                        T* const (&to)[kSets], int64_t n) {
  constexpr int64_t kOne = kRegisterLanes<T>;
  constexpr int kMany = kSets == 1 ? 4 : 2;  // what keeps the sums in registers
  int64_t e = 0;
  for (; e + kMany * kOne <= n; e += kMany * kOne) {
    blend_registers<kMany, kSets>(from, stride, count, weights, to, e);
  }
  for (; e + kOne <= n; e += kOne) blend_registers<1, kSets>(from, stride, count, weights, to, e);
  if (e == n) return;
  if (n >= kOne) return blend_registers<1, kSets>(from, stride, count, weights, to, n - kOne);  // once more
  for (; e < n; ++e) {
    for (int s = 0; s < kSets; ++s) {
      T sum = T(0);
      for (int64_t k = 0; k < count; ++k) sum += weights[s][k] * T(widen(from[k * stride + e]));
      to[s][e] = sum;
    }
  }
}

}  // namespace racnn::cpu::RACNN_ISA
