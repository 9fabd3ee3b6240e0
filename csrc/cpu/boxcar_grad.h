// SPDX-License-Identifier: BSD-3-Clause
//
// RA-CNN's surrogate gradient of the window (formulas in ../boxcar_taps.h): sums of the incoming gradient's
// energy, weighted with products of one number per row and one per column. The energy is divided by its
// maximum, which is known only at the end: as the sums are linear in it, one pass collects sums and maximum
// together.
#pragma once

#include "../boxcar_taps.h"
#include "lines.h"

namespace racnn::cpu::RACNN_ISA {

template <typename T>
struct BoxcarColumns {
  T *inside, *edge_difference, *edge_sum;  // [w]
};

template <typename T>
BoxcarColumns<T> make_boxcar_columns(Arena& arena, T half, T steepness, int32_t out) {
  const int64_t padded = out + kLanes;
  BoxcarColumns<T> columns{arena.take<T>(padded), arena.take<T>(padded), arena.take<T>(padded)};
  for (int32_t j = 0; j < padded; ++j) {
    const BoxcarTap<T> tap = j < out ? make_boxcar_tap(half, steepness, j, out) : BoxcarTap<T>{};
    columns.inside[j] = tap.inside;
    columns.edge_difference[j] = tap.edge_difference;
    columns.edge_sum[j] = tap.edge_sum;
  }
  return columns;
}

template <typename T>
void accumulate_boxcar_row(const T* energy, const BoxcarColumns<T>& x, const BoxcarTap<T>& y, int64_t size,
                           T shrink, BoxcarSums<T>& total) {
  Register<T> plain{}, inside{}, difference{}, edges{}, most{};
  for (int64_t e = 0; e < size; e += kRegisterLanes<T>) {
    const Register<T> value = load_register(energy + e);
    plain += value;
    inside += value * load_register(x.inside + e);
    difference += value * load_register(x.edge_difference + e);
    edges += value * load_register(x.edge_sum + e);
    most = value > most ? value : most;
  }
  const T energy_sum = sum_of_lanes<T>(plain), energy_inside = sum_of_lanes<T>(inside);
  total.sums.x += sum_of_lanes<T>(difference) * y.inside;
  total.sums.y += energy_inside * y.edge_difference;
  total.sums.half_x += T(0.5) * shrink * energy_sum - sum_of_lanes<T>(edges) * y.inside;
  total.sums.half_y += T(0.5) * shrink * energy_sum - energy_inside * y.edge_sum;
  for (int i = 0; i < kRegisterLanes<T>; ++i) total.most = most[i] > total.most ? most[i] : total.most;
  if (energy_sum != energy_sum) total.most = energy_sum;
}

// energy[j] = |g| of one channel, or the sum of g^2 over all; whole vectors, zeros behind the line.
template <typename Grad, typename T>
void energy_row(const BoxcarProblem<Grad>& p, const Grad* row, T* widened, T* energy) {
  const int64_t w = p.shape.out_width;
  for (int64_t e = 0; e < w + kLanes; ++e) energy[e] = T(0);
  if (p.energy == Energy::kAbs) {
    const T* g = line_of(row, p.grad_strides.x, 0, w, 1, widened);
    for (int64_t e = 0; e < w; ++e) energy[e] = g[e] < T(0) ? -g[e] : g[e];
    return;
  }
  for (int64_t c = 0; c < p.shape.channels; ++c) {
    const T* g = line_of(row + c * p.grad_strides.c, p.grad_strides.x, 0, w, 1, widened);
    for (int64_t e = 0; e < w; ++e) energy[e] += g[e] * g[e];
  }
}

template <typename Grad>
void compute(const BoxcarProblem<Grad>& p, Arena& arena, const Units& units, int64_t begin, int64_t end) {
  using T = Accumulate<Grad>;
  const int64_t n = begin / units.per_item();
  const Window<T> window = load_window(p.windows + n * p.values, p.values);
  const BoxcarColumns<T> x = make_boxcar_columns(arena, window.half_x, p.steepness, p.shape.out_width);
  T* widened = arena.take<T>(p.shape.out_width);
  T* energy = arena.take<T>(p.shape.out_width + kLanes);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    BoxcarSums<T> total{};
    const Grad* grad =
        p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows) + unit.plane_begin * p.grad_strides.c;
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
      energy_row(p, grad + i * p.grad_strides.y, widened, energy);
      const BoxcarTap<T> y = make_boxcar_tap(window.half_y, p.steepness, i, p.shape.out_height);
      accumulate_boxcar_row(energy, x, y, p.shape.out_width, p.shrink, total);
    }
    reinterpret_cast<BoxcarSums<T>*>(p.workspace)[begin] = total;
  }
}

}  // namespace racnn::cpu::RACNN_ISA
