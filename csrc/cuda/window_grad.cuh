// SPDX-License-Identifier: BSD-3-Clause
//
// The exact gradient of the windows: with the crop's taps a_j(x), b_i(y) and their derivatives,
//
//     d tx = sum_{c,i,j} g[c, i, j] sum_y sum_x b_i(y) da_j(x)/dtx I[c, y, x]
//
// and likewise ty, tw, th; d tl = d tw + d th. Of a tap's two derivatives along x only their sum and the
// upper one matter: with the source rows interpolated vertically to v0 (at the lower column) and v1 (at the
// upper), da_lower v0 + da_upper v1 = da_upper (v1 - v0) + (da_lower + da_upper) v0. Neither factor depends
// on rows or channels, so a thread adds up g (v1 - v0) and g v0 for its columns, likewise for its rows, and
// multiplies at the end; differences are taken pixel by pixel, since the sums themselves nearly cancel.
//
// Grid: a block is one slot of one window and takes every slots-th tile of it, one at least; it reduces four
// numbers by warp shuffles and writes them to its place in the workspace. A second kernel, a warp a window,
// adds up the slots. No atomics: the order is fixed. The loads are those of the forward pass (taps.cuh) plus
// g, each read once.
#pragma once

#include "../sizes.h"
#include "affine.cuh"
#include "reduce.cuh"
#include "slopes.cuh"

namespace racnn {

// Smaller than the forward's: sums take registers too. Two columns share the work per row.
template <typename Grad, bool kWide>
struct WindowGradStrip {
  static constexpr int kChannels = kStripChannels<Grad, kWide>;
  static constexpr int kColumns = kWide || sizeof(Grad) > 4 ? 1 : 2;
  static constexpr int kRows = kWide || sizeof(Grad) > 4 ? 1 : 2;
};

template <typename Image, typename Grad>
struct WindowGradParams {
  WindowGradProblem<Image, Grad> problem;
  Tiling tiling;
  int64_t slots;  // of a window
  AffineParams<Accumulate<Image>> affine;
};

// The two pixels that each column reads in one source row.
template <typename Image, typename Strip>
struct WidenedRow {
  using T = Accumulate<Image>;
  using Pixels = Pack<Image, Strip::kChannels>;
  T lower[Strip::kColumns][Strip::kChannels], upper[Strip::kColumns][Strip::kChannels];

  __device__ __forceinline__ void set(const Pixels (&pixels)[Strip::kColumns][2],
                                      const AffineParams<T>& affine, int64_t c) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      RACNN_UNROLL
      for (int v = 0; v < Strip::kChannels; ++v) {
        lower[m][v] = widen<T>(pixels[m][0].values[v]);
        upper[m][v] = widen<T>(pixels[m][1].values[v]);
        if (affine.used) {
          lower[m][v] = std::fma(lower[m][v], affine.scale[c + v], affine.shift[c + v]);
          upper[m][v] = std::fma(upper[m][v], affine.scale[c + v], affine.shift[c + v]);
        }
      }
    }
  }
};

// g at the thread's columns in one output row.
template <typename Strip, typename Image, typename Grad>
__device__ __forceinline__ void load_grad_row(const WindowGradParams<Image, Grad>& p, const Grad* grad,
                                              const Share& share,
                                              Pack<Grad, Strip::kColumns * Strip::kChannels>& row) {
  if constexpr (Strip::kChannels > 1) {
    row = load_pack<Strip::kChannels>(grad);
  } else if (p.tiling.packed) {
    row = load_pack<Strip::kColumns>(grad);
  } else {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      const int32_t step = m * p.tiling.column_step;
      if (share.column + step < p.problem.shape.out_width) {
        row.values[m] = __ldg(grad + step * p.problem.grad_strides.x);
      }
    }
  }
}

template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void add_grad_row(const Pack<Grad, Strip::kColumns * Strip::kChannels>& grads,
                                             const SourceColumns<Image, Strip>& columns, const RowTap<T>& row,
                                             const WidenedRow<Image, Strip>& lower,
                                             const WidenedRow<Image, Strip>& upper,
                                             SlopeSums<T> (&column_sums)[Strip::kColumns],
                                             SlopeSums<T>& row_sums) {
  RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    if (!columns.inside[m]) continue;
    RACNN_UNROLL
    for (int v = 0; v < Strip::kChannels; ++v) {
      const T g = widen<T>(grads.values[m * Strip::kChannels + v]);
      const T p00 = lower.lower[m][v], p01 = lower.upper[m][v], p10 = upper.lower[m][v],
              p11 = upper.upper[m][v];
      column_sums[m].add(g, std::fma(row.w_upper, p11 - p10, row.w_lower * (p01 - p00)),
                         std::fma(row.w_upper, p10, row.w_lower * p00));
      row_sums.add(g, std::fma(columns.w_upper[m], p11 - p01, columns.w_lower[m] * (p10 - p00)),
                   std::fma(columns.w_upper[m], p01, columns.w_lower[m] * p00));
    }
  }
}

// A strip of one thread at channel c, with its kRows row taps; rows beyond the crop are empty.
template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void window_grad_strip(const WindowGradParams<Image, Grad>& p,
                                                  const SourceColumns<Image, Strip>& columns,
                                                  const RowTap<T>* rows, const Share& share, int64_t c,
                                                  const Grad* grad,
                                                  SlopeSums<T> (&column_sums)[Strip::kColumns],
                                                  SlopeSums<T> (&row_sums)[Strip::kRows]) {
  SourcePixels<Image, Strip> source;
  Pack<Grad, Strip::kColumns * Strip::kChannels> grads[Strip::kRows];
  source.load(columns, rows);
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    if (rows[r].plan >= 0) load_grad_row<Strip>(p, grad + r * p.problem.grad_strides.y, share, grads[r]);
  }
  WidenedRow<Image, Strip> lower{}, upper{};
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    const int32_t plan = rows[r].plan;
    if (plan & kLoadLower) {
      lower.set(source.lower[r], p.affine, c);
    } else if (plan & kStepDown) {
      lower = upper;
    }
    if (plan & kLoadUpper) upper.set(source.upper[r], p.affine, c);
    if (plan >= 0) add_grad_row(grads[r], columns, rows[r], lower, upper, column_sums, row_sums[r]);
  }
}

// Adds the rows' part of a tile to `sums`, the columns' to `column_sums`.
template <typename Strip, typename Image, typename Grad, typename T>
__device__ __forceinline__ void window_grad_tile(const WindowGradParams<Image, Grad>& p, int64_t crop,
                                                 const Tile& tile, const Share& share,
                                                 const GradTables<T, Strip::kRows>& tables,
                                                 SlopeSums<T> (&column_sums)[Strip::kColumns],
                                                 T (&sums)[kAxisSums]) {
  const WindowGradProblem<Image, Grad>& problem = p.problem;
  const Strides &in_strides = problem.image_strides, &grad_strides = problem.grad_strides;
  const int64_t image = crop / problem.shape.windows;
  SourceColumns<Image, Strip> columns(tables.axes->x, share.column, p.tiling.column_step,
                                      problem.images + image * in_strides.b + share.channel * in_strides.c,
                                      in_strides.x);
  const Grad* const grad = problem.grad_output + crop_offset(grad_strides, crop, problem.shape.windows) +
                           share.column * grad_strides.x;
  for (int32_t i = share.row; i < share.row_end; i += share.row_step) {
    const int32_t r0 = i - tile.row;
    SlopeSums<T> row_sums[Strip::kRows] = {};
    const Grad* strip = grad + share.channel * grad_strides.c + i * grad_strides.y;
    int64_t c = share.channel;
    for (; c < share.channel_end; c += share.channel_step) {
      window_grad_strip(p, columns, tables.rows + r0, share, c, strip, column_sums, row_sums);
      strip += share.channel_step * grad_strides.c;
      columns.advance(share.channel_step * in_strides.c);
    }
    columns.advance((share.channel - c) * in_strides.c);
    RACNN_UNROLL
    for (int r = 0; r < Strip::kRows; ++r) row_sums[r].add_to(tables.row_slopes[r0 + r], sums[2], sums[3]);
  }
}

template <typename Image, typename Grad, bool kWide>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<Accumulate<Image>, true>)
    window_grad_kernel(WindowGradParams<Image, Grad> p) {
  using T = Accumulate<Image>;
  using Strip = WindowGradStrip<Grad, kWide>;
  const WindowGradProblem<Image, Grad>& problem = p.problem;
  const GradTables<T, Strip::kRows> tables(p.tiling.rows);
  const int64_t crops = problem.shape.batch * problem.shape.windows;
  for (int64_t block = blockIdx.x; block < crops * p.slots; block += gridDim.x) {
    const int64_t crop = block / p.slots, slot = block % p.slots;
    if (threadIdx.x == 0) *tables.axes = crop_axes(problem.taps, problem.shape, crop);
    __syncthreads();
    T sums[kAxisSums] = {};
    for (int64_t t = slot; t < p.tiling.tiles(); t += p.slots) {
      const Tile tile = tile_at(p.tiling, t);
      const Share share = share_of<Strip>(p.tiling, tile, problem.shape, threadIdx.x);
      tables.make(tile.row, p.tiling.rows, problem.image_strides.y * int64_t(sizeof(Image)));
      __syncthreads();
      SlopeSums<T> column_sums[Strip::kColumns] = {};
      if (share.exists) window_grad_tile<Strip>(p, crop, tile, share, tables, column_sums, sums);
      __syncthreads();
      RACNN_UNROLL
      for (int m = 0; m < Strip::kColumns; ++m) {
        const int32_t j = share.column + m * p.tiling.column_step;
        if (share.exists && j < problem.shape.out_width) {
          column_sums[m].add_to(make_tap_slope(tables.axes->x, j), sums[0], sums[1]);
        }
      }
    }
    block_sum(sums, tables.scratch);
    if (threadIdx.x == 0) {
      problem.workspace[slot * crops + crop] = {sums[0], sums[1], sums[2], sums[3]};
    }
  }
}

template <typename T>
struct FinishWindowGradParams {
  const Window<T>* workspace;  // [slots, N]
  T* grad_windows;             // [N, values]
  WindowSpec<T> windows;
  int64_t crops, slots;
};

// A warp adds up the slots of a window.
template <typename T>
__global__ void finish_window_grad_kernel(FinishWindowGradParams<T> p) {
  const int64_t warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t n = blockIdx.x * warps + threadIdx.x / kWarp; n < p.crops; n += gridDim.x * warps) {
    T sums[kAxisSums] = {};
    for (int64_t slot = lane; slot < p.slots; slot += kWarp) {
      const Window<T> part = p.workspace[slot * p.crops + n];
      sums[0] += part.x;
      sums[1] += part.half_x;
      sums[2] += part.y;
      sums[3] += part.half_y;
    }
    warp_sum(sums);
    if (lane == 0) {
      const Window<T> window = load_window(p.windows, n);
      store_window_grad(window, sums, p.windows.values, p.grad_windows + n * p.windows.values);
    }
  }
}

// The most slots of a window: enough for kTargetBlocks blocks and as many again, so that tiles need not share
// one; at most h + w.
inline int64_t window_grad_slots(const CropShape& shape) {
  const int64_t crops = std::max<int64_t>(1, shape.batch * shape.windows);
  return std::min<int64_t>(divide_up(2 * kTargetBlocks, crops), int64_t(shape.out_height) + shape.out_width);
}

// In windows.
inline int64_t window_grad_workspace(const CropShape& shape) {
  return checked_product("the workspace of the window gradient",
                         {shape.batch, shape.windows, window_grad_slots(shape)});
}

template <typename Image, typename Grad>
bool is_wide(const WindowGradProblem<Image, Grad>& p) {
  constexpr int kChannels = kStripChannels<Grad, true>;
  const Strides &in = p.image_strides, &grad = p.grad_strides;
  return p.shape.channels >= kFewestWideChannels && in.c == 1 && grad.c == 1 &&
         can_pack<kChannels>(p.images, p.shape.channels, {in.b, in.y, in.x}) &&
         can_pack<kChannels>(p.grad_output, p.shape.channels, {grad.b, grad.k, grad.y, grad.x});
}

// With no more slots than there are tiles, so that no block is idle; sets their number.
template <bool kWide, typename Image, typename Grad>
cudaError_t launch_window_grad(const WindowGradProblem<Image, Grad>& p, int64_t& slots, cudaStream_t stream,
                               int64_t max_blocks) {
  using T = Accumulate<Image>;
  using Strip = WindowGradStrip<Grad, kWide>;
  const Strides& grad = p.grad_strides;
  const bool channels_fastest = p.shape.channels > 1 && p.image_strides.c < p.image_strides.x;
  const bool packed =
      !channels_fastest && grad.x == 1 &&
      can_pack<Strip::kColumns>(p.grad_output, p.shape.out_width, {grad.b, grad.k, grad.c, grad.y});
  const Tiling tiling = make_tiling<Strip>(
      p.shape, {channels_fastest, packed, Strip::kChannels, kMultiprocessors, kRegisters<true>});
  slots = std::min(window_grad_slots(p.shape), tiling.tiles());
  const int64_t blocks = p.shape.batch * p.shape.windows * slots;
  return launch(window_grad_kernel<Image, Grad, kWide>, dim3(unsigned(std::min(blocks, max_blocks))),
                dim3(tiling.threads()), GradTables<T, Strip::kRows>::bytes(tiling), stream,
                WindowGradParams<Image, Grad>{p, tiling, slots, AffineParams<T>(p.affine, p.shape.channels)});
}

// Two launches.
template <typename Image, typename Grad>
cudaError_t compute(const WindowGradProblem<Image, Grad>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Image>;
  const int64_t crops = p.shape.batch * p.shape.windows;
  if (crops == 0) return cudaSuccess;
  int64_t slots = 0;
  if (p.shape.channels > 0) {
    const cudaError_t error = is_wide(p) ? launch_window_grad<true>(p, slots, stream, max_blocks)
                                         : launch_window_grad<false>(p, slots, stream, max_blocks);
    if (error != cudaSuccess) return error;
  }
  const int64_t blocks = divide_up<int64_t>(crops, kFinishThreads / kWarp);
  return launch(finish_window_grad_kernel<T>, dim3(unsigned(std::min(blocks, max_blocks))),
                dim3(kFinishThreads), 0, stream,
                FinishWindowGradParams<T>{p.workspace, p.grad_windows, p.taps, crops, slots});
}

}  // namespace racnn
