// SPDX-License-Identifier: BSD-3-Clause
//
// Taps of any length (filter_runs.h) as the kernels read them.
#pragma once

#include "taps.h"

namespace racnn::cpu::RACNN_ISA {

// The runs of one axis: of `out` outputs in `size` pixels. Their weights, then, in a table with derivatives,
// those by the window's centre and half side.
template <typename T>
struct AxisRuns {
  static constexpr int kSets = 3;

  int32_t size, out;
  Run* runs;       // [out]
  T** weights;     // [out]: the sets of a run, one behind the other
  T* sums[kSets];  // [out]: of each set

  const T* set(int32_t j, int s) const { return weights[j] + int64_t(s) * runs[j].count; }

  // visit(output, pixel, weight)
  template <typename Visit>
  void each(const Visit& visit) const {
    for (int32_t j = 0; j < out; ++j) {
      for (int32_t k = 0; k < runs[j].count; ++k) visit(j, runs[j].first + k, weights[j][k]);
    }
  }
};

template <bool kGrad = false, typename T>
AxisRuns<T> axis_taps(Arena& arena, const FilterAxis<T>& axis) {
  constexpr int kSets = kGrad ? AxisRuns<T>::kSets : 1;
  const int32_t out = axis.axis.out;
  AxisRuns<T> table{axis.axis.size, out, arena.take<Run>(out), arena.take<T*>(out), {}};
  for (int s = 0; s < kSets; ++s) table.sums[s] = arena.take<T>(out);
  const int64_t longest = longest_run(axis);
  T* found = arena.take<T>(kSets * longest);
  T* room = nullptr;
  int64_t left = 0;
  for (int32_t j = 0; j < out; ++j) {
    const Run run = make_run<kGrad>(axis, j, [&](int32_t k, const RunEntry<T>& entry) {
      found[k] = entry.weight;
      if constexpr (kGrad) {
        found[longest + k] = entry.grad.centre;
        found[2 * longest + k] = entry.grad.half;
      }
    });
    const int64_t numbers = kSets * int64_t(run.count);
    if (numbers > left) {
      left = kSets * longest * lesser(out - j, 64);
      room = arena.take<T>(left);
    }
    table.runs[j] = run;
    table.weights[j] = room;
    for (int s = 0; s < kSets; ++s) {
      T sum = T(0);
      for (int32_t k = 0; k < run.count; ++k) {
        room[int64_t(s) * run.count + k] = found[s * longest + k];
        sum += found[s * longest + k];
      }
      table.sums[s][j] = sum;
    }
    room += numbers;
    left -= numbers;
  }
  return table;
}

}  // namespace racnn::cpu::RACNN_ISA
