// SPDX-License-Identifier: BSD-3-Clause
//
// What the window gradient (window_grad.cuh) tabulates for an axis beside the taps, and what it adds up
// with it. Of a tap's two derivatives only their sum and the upper one matter there.
#pragma once

#include "taps.cuh"

namespace racnn {

template <typename T>
struct TapSlope {
  T centre_step, centre_level;  // d upper weight, d (lower + upper weight), with respect to the centre
  T half_step, half_level;      // with respect to the half side
};

template <typename T>
RACNN_HOST_DEVICE TapSlope<T> make_tap_slope(const Axis<T>& axis, int32_t j) {
  const TapGrad<T> d = make_tap_grad(axis, j);
  return {d.centre_upper, d.centre_lower + d.centre_upper, d.half_upper, d.half_lower + d.half_upper};
}

// What one thread adds up for a row or a column.
template <typename T>
struct SlopeSums {
  T step, level;

  __device__ __forceinline__ void add(T g, T step_value, T level_value) {
    step = std::fma(g, step_value, step);
    level = std::fma(g, level_value, level);
  }

  __device__ __forceinline__ void add_to(const TapSlope<T>& slope, T& centre, T& half) const {
    centre += std::fma(slope.centre_level, level, slope.centre_step * step);
    half += std::fma(slope.half_level, level, slope.half_step * step);
  }
};

// A block's shared memory. kRows is the strips' height.
template <typename T, int kRows>
struct GradTables {
  CropAxes<Axis<T>>* axes;
  RowTap<T>* rows;          // [tile rows]
  TapSlope<T>* row_slopes;  // [tile rows]
  T* scratch;               // [warps, kAxisSums]

  __device__ __forceinline__ explicit GradTables(int32_t count)
      : axes(shared_memory<CropAxes<Axis<T>>>()),
        rows(reinterpret_cast<RowTap<T>*>(axes + 1)),
        row_slopes(reinterpret_cast<TapSlope<T>*>(rows + count)),
        scratch(reinterpret_cast<T*>(row_slopes + count)) {}

  static size_t bytes(const Tiling& tiling) {
    return sizeof(CropAxes<Axis<T>>) + tiling.rows * (sizeof(RowTap<T>) + sizeof(TapSlope<T>)) +
           tiling.threads() / kWarp * kAxisSums * sizeof(T);
  }

  __device__ __forceinline__ void make(int32_t begin, int32_t count, int64_t row_bytes) const {
    make_row_taps<kRows>(axes->y, begin, count, row_bytes, rows);
    for (int32_t r = threadIdx.x; r < count; r += blockDim.x) {
      row_slopes[r] = begin + r < axes->y.out ? make_tap_slope(axes->y, begin + r) : TapSlope<T>{};
    }
  }
};

}  // namespace racnn
