// SPDX-License-Identifier: BSD-3-Clause
//
// RA-CNN's surrogate gradient of the windows (boxcar_taps.h): with D = scale E / max E and, from the taps of
// column j and row i, X = inside, X' = edge_difference, X" = edge_sum and Y, Y', Y",
//
//     d tx = sum D X' Y,   d tw = sum D (shrink / 2 - X" Y),   d ty, d th alike,   d tl = d tw + d th.
//
// All are linear in the energy E, so one pass over g collects the sums of E and its maximum together; the
// division comes at the end. E is |g| of each channel with a maximum of its own, or the sum of g^2 over all
// channels.
//
// Work is cut into parts, [rows of a crop] x [one channel, a group of channels or all channels]; a warp takes
// one, lanes along its flattened pixels. Blocks take parts of one crop, with its tables of rows and columns
// in shared memory, so a pixel costs one load of g, two of tables and six multiply-adds. A second kernel, a
// warp a window, combines maxima and sums in a fixed order: two launches, no atomics.
#pragma once

#include "../boxcar_taps.h"
#include "../sizes.h"
#include "reduce.cuh"
#include "tiling.cuh"

namespace racnn {

// What a part leaves in the workspace: the sums of E, of E times the four products above, and the maximum of
// E.
enum BoxcarSum : int { kEnergy, kMoveX, kMoveY, kGrowX, kGrowY, kMaximum, kBoxcarSums };

constexpr int64_t kTargetParts = 8 * kTargetBlocks;  // a warp each
constexpr int64_t kFewestPixels = 8 * kWarp;  // of a part: the reduction at its end is worth about 4 a lane
constexpr size_t kMostTableBytes = 48 << 10;  // of shared memory, what every GPU gives unasked

// How a crop is cut. Several row parts share a maximum; a group of several channels is normalised channel by
// channel.
struct BoxcarParts {
  int64_t group_channels;  // channels of a group; kSquare: all of them, taken together
  int64_t groups;
  int32_t part_rows;
  int32_t row_parts;

  RACNN_HOST_DEVICE int64_t count() const { return groups * row_parts; }
};

// Enough parts for kTargetParts warps; at most h + w a crop, which bounds the workspace.
inline BoxcarParts make_boxcar_parts(const CropShape& shape, Energy energy) {
  const int64_t crops = std::max<int64_t>(1, shape.batch * shape.windows);
  const int64_t most =
      std::min<int64_t>(divide_up(kTargetParts, crops), int64_t(shape.out_height) + shape.out_width);
  const int64_t pixels = int64_t(shape.out_height) * shape.out_width;
  BoxcarParts parts{};
  parts.group_channels = energy == Energy::kSquare ? shape.channels : divide_up(shape.channels, most);
  parts.groups = divide_up(shape.channels, std::max<int64_t>(1, parts.group_channels));
  const int64_t row_parts = std::min(most / std::max<int64_t>(1, parts.groups), pixels / kFewestPixels);
  parts.part_rows = int32_t(divide_up<int64_t>(shape.out_height, std::max<int64_t>(1, row_parts)));
  parts.row_parts = divide_up(shape.out_height, parts.part_rows);
  return parts;
}

inline int64_t boxcar_grad_workspace(const CropShape& shape, Energy energy) {
  return checked_product("the workspace of the boxcar gradient",
                         {shape.batch, shape.windows, make_boxcar_parts(shape, energy).count(), kBoxcarSums});
}

template <typename Grad>
struct BoxcarGradParams {
  BoxcarProblem<Grad> problem;
  BoxcarParts parts;
  int64_t blocks_per_crop;
};

// The taps of one axis, tabled in shared memory or, for crops too large for that, computed where they are
// needed.
template <typename T, bool kTabled>
struct BoxcarAxis {
  // Pixels of a lane at a time: their loads are in flight together.
  static constexpr int kBatch = kTabled ? 4 : 1;
  BoxcarTap<T>* table;  // [out]
  T half, steepness;
  int32_t out;

  __device__ __forceinline__ void make() const {
    if constexpr (kTabled) {
      for (int32_t j = threadIdx.x; j < out; j += blockDim.x) {
        table[j] = make_boxcar_tap(half, steepness, j, out);
      }
    }
  }
  __device__ __forceinline__ BoxcarTap<T> operator[](int32_t j) const {
    if constexpr (kTabled) {
      return table[j];
    } else {
      return make_boxcar_tap(half, steepness, j, out);
    }
  }
};

// The larger; NaN if one is.
template <typename T>
__device__ __forceinline__ T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <typename T>
__device__ __forceinline__ void add_pixel(T energy, const BoxcarTap<T>& x, const BoxcarTap<T>& y,
                                          T (&sums)[kBoxcarSums]) {
  const T beside_x = energy * x.inside, beside_y = energy * y.inside;
  sums[kEnergy] += energy;
  sums[kMoveX] = std::fma(beside_y, x.edge_difference, sums[kMoveX]);
  sums[kMoveY] = std::fma(beside_x, y.edge_difference, sums[kMoveY]);
  sums[kGrowX] = std::fma(beside_y, x.edge_sum, sums[kGrowX]);
  sums[kGrowY] = std::fma(beside_x, y.edge_sum, sums[kGrowY]);
  sums[kMaximum] = larger(sums[kMaximum], energy);
}

// The rows [row_begin, row_end) of a crop with the energy of channels [0, channels) from `grad` on, by a
// warp; every lane gets its own share of the sums.
template <bool kTabled, typename Grad, typename T>
__device__ __forceinline__ void add_pixels(const BoxcarProblem<Grad>& p, const Grad* grad, int64_t channels,
                                           int32_t row_begin, int32_t row_end,
                                           const BoxcarAxis<T, kTabled>& columns,
                                           const BoxcarAxis<T, kTabled>& rows, T (&sums)[kBoxcarSums]) {
  const int32_t width = p.shape.out_width, step_rows = kWarp / width, step_columns = kWarp % width;
  constexpr int kBatch = BoxcarAxis<T, kTabled>::kBatch;
  const int32_t lane = threadIdx.x % kWarp;
  int32_t row = row_begin + lane / width, column = lane % width;
  while (row < row_end) {
    int32_t i[kBatch], j[kBatch];
    const Grad* pixels[kBatch];
    T energy[kBatch] = {};
    RACNN_UNROLL
    for (int n = 0; n < kBatch; ++n) {
      i[n] = row;
      j[n] = column;
      // Beyond the end an earlier row is read: a branch around a load would wait for the load before it.
      pixels[n] = grad + lesser(row, row_end - 1) * p.grad_strides.y + column * p.grad_strides.x;
      row += step_rows;
      column += step_columns;
      if (column >= width) {
        column -= width;
        ++row;
      }
    }
    // Unrolled it takes more than 80 registers: two resident blocks instead of three.
    RACNN_NO_UNROLL
    for (int64_t c = 0; c < channels; ++c) {
      RACNN_UNROLL
      for (int n = 0; n < kBatch; ++n) {
        const T g = widen<T>(__ldg(pixels[n] + c * p.grad_strides.c));
        energy[n] += p.energy == Energy::kAbs ? std::abs(g) : g * g;
      }
    }
    RACNN_UNROLL
    for (int n = 0; n < kBatch; ++n) {
      if (i[n] < row_end) add_pixel(energy[n], columns[j[n]], rows[i[n]], sums);
    }
  }
}

// All lanes get the sums and the maximum over the warp.
template <typename T>
__device__ __forceinline__ void combine_lanes(T (&sums)[kBoxcarSums]) {
  T maximum = sums[kMaximum];
  RACNN_UNROLL
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    maximum = larger(maximum, __shfl_xor_sync(kAllLanes, maximum, lanes));
  }
  sums[kMaximum] = T(0);
  warp_sum(sums);
  sums[kMaximum] = maximum;
}

// Adds sums divided by their maximum, nothing if that is 0.
template <typename T>
__device__ __forceinline__ void add_normalised(const T (&sums)[kBoxcarSums], T (&total)[kBoxcarSums]) {
  if (sums[kMaximum] == T(0)) return;
  RACNN_UNROLL
  for (int s = 0; s < kMaximum; ++s) total[s] += sums[s] / sums[kMaximum];
}

// One part by one warp, to its place in the workspace. Where a part has all rows its maxima are final: it
// leaves normalised sums, with 1 for the maximum.
template <bool kTabled, typename Grad, typename T>
__device__ __forceinline__ void boxcar_part(const BoxcarGradParams<Grad>& p, const Grad* crop, int64_t part,
                                            const BoxcarAxis<T, kTabled>& columns,
                                            const BoxcarAxis<T, kTabled>& rows, T* place) {
  const BoxcarProblem<Grad>& problem = p.problem;
  const int64_t group = part % p.parts.groups;
  const int32_t row_begin = int32_t(part / p.parts.groups) * p.parts.part_rows;
  const int32_t row_end = lesser(row_begin + p.parts.part_rows, problem.shape.out_height);
  const int64_t channel_begin = group * p.parts.group_channels;
  const int64_t channel_end = lesser(channel_begin + p.parts.group_channels, problem.shape.channels);
  const int64_t together = problem.energy == Energy::kSquare ? problem.shape.channels : 1;
  T total[kBoxcarSums] = {};
  for (int64_t c = channel_begin; c < channel_end; c += together) {
    T sums[kBoxcarSums] = {};
    add_pixels(problem, crop + c * problem.grad_strides.c, together, row_begin, row_end, columns, rows, sums);
    combine_lanes(sums);
    if (p.parts.row_parts == 1) {
      add_normalised(sums, total);
      total[kMaximum] = T(1);
    } else {
      RACNN_UNROLL
      for (int s = 0; s < kBoxcarSums; ++s) total[s] = sums[s];  // a single channel or all together
    }
  }
  if (threadIdx.x % kWarp == 0) {
    RACNN_UNROLL
    for (int s = 0; s < kBoxcarSums; ++s) place[s] = total[s];
  }
}

template <typename Grad, bool kTabled>
__global__ void __launch_bounds__(kThreads, 2) boxcar_grad_kernel(BoxcarGradParams<Grad> p) {
  using T = Accumulate<Grad>;
  const BoxcarProblem<Grad>& problem = p.problem;
  const CropShape& shape = problem.shape;
  constexpr int kWarps = kThreads / kWarp;
  const int64_t blocks = shape.batch * shape.windows * p.blocks_per_crop;
  BoxcarTap<T>* const tables = shared_memory<BoxcarTap<T>>();
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t crop = block / p.blocks_per_crop, first = block % p.blocks_per_crop * kWarps;
    const Window<T> window = load_window(problem.windows + crop * problem.values, problem.values);
    const BoxcarAxis<T, kTabled> columns{tables, window.half_x, problem.steepness, shape.out_width};
    const BoxcarAxis<T, kTabled> rows{tables + shape.out_width, window.half_y, problem.steepness,
                                      shape.out_height};
    columns.make();
    rows.make();
    __syncthreads();
    const int64_t part = first + threadIdx.x / kWarp;
    if (part < p.parts.count()) {
      const Grad* const grad = problem.grad_output + crop_offset(problem.grad_strides, crop, shape.windows);
      T* const place = problem.workspace + (crop * p.parts.count() + part) * kBoxcarSums;
      boxcar_part(p, grad, part, columns, rows, place);
    }
    __syncthreads();
  }
}

template <typename T>
struct FinishBoxcarGradParams {
  const T* workspace;  // [N, parts, groups, kBoxcarSums]
  T* grad_windows;     // [N, values]
  const T* windows;    // [N, values]
  int32_t values;
  int64_t crops, parts, groups;
  T scale, shrink;
};

// A warp combines the parts of a window.
template <typename T>
__global__ void finish_boxcar_grad_kernel(FinishBoxcarGradParams<T> p) {
  const int64_t warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t n = blockIdx.x * warps + threadIdx.x / kWarp; n < p.crops; n += gridDim.x * warps) {
    T total[kBoxcarSums] = {};
    for (int64_t group = 0; group < p.groups; ++group) {
      T sums[kBoxcarSums] = {};
      for (int64_t part = lane; part < p.parts; part += kWarp) {
        const T* const place = p.workspace + ((n * p.parts + part) * p.groups + group) * kBoxcarSums;
        RACNN_UNROLL
        for (int s = 0; s < kMaximum; ++s) sums[s] += place[s];
        sums[kMaximum] = larger(sums[kMaximum], place[kMaximum]);
      }
      combine_lanes(sums);
      add_normalised(sums, total);
    }
    if (lane == 0) {
      const T shrink = T(0.5) * p.shrink * total[kEnergy];
      const T axes[kAxisSums] = {p.scale * total[kMoveX], p.scale * (shrink - total[kGrowX]),
                                 p.scale * total[kMoveY], p.scale * (shrink - total[kGrowY])};
      const Window<T> window = load_window(p.windows + n * p.values, p.values);
      store_window_grad(window, axes, p.values, p.grad_windows + n * p.values);
    }
  }
}

template <typename Grad>
cudaError_t compute(const BoxcarProblem<Grad>& p, cudaStream_t stream, int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Grad>;
  const int64_t crops = p.shape.batch * p.shape.windows;
  if (crops == 0) return cudaSuccess;
  const BoxcarParts parts = make_boxcar_parts(p.shape, p.energy);
  if (parts.count() > 0) {
    const BoxcarGradParams<Grad> params{p, parts, divide_up<int64_t>(parts.count(), kThreads / kWarp)};
    const size_t table_bytes = (size_t(p.shape.out_width) + p.shape.out_height) * sizeof(BoxcarTap<T>);
    const dim3 grid(unsigned(std::min(crops * params.blocks_per_crop, max_blocks)));
    const cudaError_t error =
        table_bytes <= kMostTableBytes
            ? launch(boxcar_grad_kernel<Grad, true>, grid, dim3(kThreads), table_bytes, stream, params)
            : launch(boxcar_grad_kernel<Grad, false>, grid, dim3(kThreads), 0, stream, params);
    if (error != cudaSuccess) return error;
  }
  // Normalised parts have the maximum 1 in common: one group.
  const bool normalised = parts.row_parts == 1;
  const FinishBoxcarGradParams<T> params{p.workspace,
                                         p.grad_windows,
                                         p.windows,
                                         p.values,
                                         crops,
                                         normalised ? parts.groups : parts.row_parts,
                                         normalised ? 1 : parts.groups,
                                         p.scale,
                                         p.shrink};
  const int64_t blocks = divide_up<int64_t>(crops, kFinishThreads / kWarp);
  return launch(finish_boxcar_grad_kernel<T>, dim3(unsigned(std::min(blocks, max_blocks))),
                dim3(kFinishThreads), 0, stream, params);
}

}  // namespace racnn
