// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels of the window's gradient add up.
#pragma once

#include "runs.h"
#include "vec.h"

namespace racnn::cpu::RACNN_ISA {

// Sums by the window's numbers, lane by lane.
template <typename T>
struct LaneSums {
  Register<T> x, half_x, y, half_y;

  void add(const LaneSums& row, const AxisGrad<T>* factor) {
    x += row.x;
    half_x += row.half_x;
    y += factor == nullptr ? row.y : row.y * factor->centre;
    half_y += factor == nullptr ? row.half_y : row.y * factor->half;
  }

  Window<T> total() const {
    return {sum_of_lanes<T>(x), sum_of_lanes<T>(half_x), sum_of_lanes<T>(y), sum_of_lanes<T>(half_y)};
  }
};

// Whether no weight moves with the window: a gradient that is not finite has no part in the sums then.
template <typename Taps>
bool is_still(const Taps& taps) {
  if constexpr (requires { taps.interpolation; }) {
    return taps.interpolation == Interpolation::kNearest && !(taps.steepness > 0);
  }
  return false;
}

}  // namespace racnn::cpu::RACNN_ISA
