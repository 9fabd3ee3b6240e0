// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of the images, gathered over the rectangle of outputs that read pixel (y, x)
// (inverse_taps.cuh):
//
//     grad_images[b, c, y, x] = sum_k sum_{i,j} b_i(y) a_j(x) g[b, k, c, i, j]
//
// No atomics, and each element is written once.
//
// Grid: a block takes tiles of one image (tiling.cuh, the image in the place of the crop); a thread holds
// kRows pixels of a column times 4 channels as sums in registers while the block goes through the windows k
// in order. Windows that do not reach the tile cost a comparison of ranges: most tiles of a large image only
// store zeros, at the memory's speed. For the others the block tabulates the outputs of its rows and columns
// once for all channels.
//
// Few outputs read a pixel at a moderate zoom, 4 at zoom 1: its own thread adds them up. Where many do (a
// strong zoom, or a window over the border that repeats the edge pixel) the warp works on one pixel together.
#pragma once

#include "affine.cuh"
#include "gather.cuh"
#include "reduce.cuh"

namespace racnn {

// Pixels of one thread. Channels beyond the first neighbour (kWide: one word) or are loaded one by one.
template <typename Image, bool kWide>
struct PixelStrip {
  static constexpr int kChannels = sizeof(Image) == 8 && kWide ? 2 : 4;
  static constexpr int kColumns = 1;
  static constexpr int kRows = sizeof(Image) == 8 ? 2 : 4;
};

constexpr int kPixelColumnLanes = kWarp;  // about square tiles meet the fewest windows
constexpr int kTeamColumns = 8;  // lanes of a warp that works together: 8 columns x 4 rows of outputs

template <typename Grad, typename Image, typename Taps>
struct ImageGradParams {
  ImageGradProblem<Grad, Image, Taps> problem;
  Tiling tiling;  // of an image
  int64_t tiles;  // of all images
  AffineParams<Accumulate<Image>> affine;
};

// The images as crops of their own size: what is tiled here.
RACNN_HOST_DEVICE CropShape image_as_crop(CropShape shape) {
  shape.windows = 1;
  shape.out_height = shape.height;
  shape.out_width = shape.width;
  return shape;
}

// g of one output at the thread's channels, the first `count` of kChannels.
template <bool kWide, int kChannels, typename Grad>
__device__ __forceinline__ Pack<Grad, kChannels> load_channels(const Grad* grad, int64_t stride,
                                                               int32_t count) {
  if constexpr (kWide) {
    return load_pack<kChannels>(grad);
  } else {
    Pack<Grad, kChannels> values{};
    RACNN_UNROLL
    for (int v = 0; v < kChannels; ++v) {
      if (v < count) values.values[v] = __ldg(grad + v * stride);
    }
    return values;
  }
}

// Adds up every row_step-th row and column_step-th column of the outputs, from the given ones on, two columns
// at a time to have more loads in flight. `grad` is the round's first output, at the thread's first channel.
template <bool kWide, int kChannels, typename Grad, typename T, typename Taps>
__device__ __forceinline__ void add_outputs(const ImageGradTables<T, Taps>& tables, const Gather<T>& at,
                                            const Grad* grad, const Strides& strides, int32_t count,
                                            int32_t row, int32_t row_step, int32_t column,
                                            int32_t column_step, T (&sums)[kChannels]) {
  RACNN_NO_UNROLL
  for (int32_t i = at.rows.begin + row; i < at.rows.end; i += row_step) {
    const T w_row = at.mask * tables.rows.weight(i, at.rows);
    const Grad* const line = grad + i * strides.y;
    RACNN_NO_UNROLL
    for (int32_t j = at.columns.begin + column; j < at.columns.end; j += 2 * column_step) {
      const bool two = j + column_step < at.columns.end;
      const int32_t j2 = two ? j + column_step : j;
      const auto first = load_channels<kWide, kChannels>(line + j * strides.x, strides.c, count);
      const auto second = load_channels<kWide, kChannels>(line + j2 * strides.x, strides.c, count);
      const T w_first = w_row * tables.columns.weight(j, at.columns);
      const T w_second = two ? w_row * tables.columns.weight(j2, at.columns) : T(0);
      RACNN_UNROLL
      for (int v = 0; v < kChannels; ++v) {
        sums[v] = std::fma(w_first, widen<T>(first.values[v]), sums[v]);
        sums[v] = std::fma(w_second, widen<T>(second.values[v]), sums[v]);
      }
    }
  }
}

// Those of one lane of the warp, in all its lanes.
__device__ __forceinline__ Outputs broadcast(const Outputs& own, int lane) {
  return {__shfl_sync(kAllLanes, own.begin, lane), __shfl_sync(kAllLanes, own.middle, lane),
          __shfl_sync(kAllLanes, own.end, lane)};
}

template <typename T>
__device__ __forceinline__ Gather<T> broadcast(const Gather<T>& own, int lane) {
  return {__shfl_sync(kAllLanes, own.mask, lane), broadcast(own.columns, lane), broadcast(own.rows, lane)};
}

// The warp works out the large gathers of its lanes one after another. `grad` is the round's first output;
// every lane calls, with its first channel.
template <bool kWide, int kChannels, typename Grad, typename T, typename Taps>
__device__ __forceinline__ void add_together(const ImageGradTables<T, Taps>& tables, const Gather<T>& own,
                                             const Grad* grad, const Strides& strides, int64_t channel,
                                             int32_t count, T (&sums)[kChannels]) {
  const unsigned large = __ballot_sync(kAllLanes, own.is_large());
  const int32_t self = threadIdx.x % kWarp;
  RACNN_NO_UNROLL
  for (unsigned rest = large; rest != 0; rest &= rest - 1) {  // mostly there are none
    const int lane = __ffs(int(rest)) - 1;
    const Gather<T> at = broadcast(own, lane);
    const int64_t c = __shfl_sync(kAllLanes, channel, lane);
    const int32_t its_count = __shfl_sync(kAllLanes, count, lane);
    T parts[kChannels] = {};
    add_outputs<kWide>(tables, at, grad + c * strides.c, strides, its_count, self / kTeamColumns,
                       kWarp / kTeamColumns, self % kTeamColumns, kTeamColumns, parts);
    warp_sum(parts);
    RACNN_UNROLL
    for (int v = 0; v < kChannels; ++v) sums[v] += self == lane ? parts[v] : T(0);
  }
}

// Adds a round to the sums of a thread's pixels. All threads of the block call; those without work with count
// = 0.
template <typename Strip, bool kWide, typename Grad, typename Image, typename Taps, typename T>
__device__ __forceinline__ void add_round(const ImageGradParams<Grad, Image, Taps>& p,
                                          const ImageGradTables<T, Taps>& tables, int64_t number,
                                          const Round& round, const Tile& tile, const Share& share,
                                          int64_t channel, int32_t count,
                                          T (&sums)[Strip::kRows][Strip::kChannels]) {
  const Strides& strides = p.problem.grad_strides;
  const Grad* const grad = p.problem.grad_output + crop_offset(strides, number, p.problem.shape.windows) +
                           round.row * strides.y + round.column * strides.x;
  const int32_t tx = share.column - tile.column, ty = share.row - tile.row;
  const int32_t pixels = count > 0 ? share.row_end - share.row : 0;
  // One pixel at a time: registers for four would halve the threads.
  RACNN_NO_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    T parts[Strip::kChannels] = {};
    const Gather<T> at = r < pixels ? gather_at(tables, round, tx, ty + r) : Gather<T>{};
    if (!at.is_large()) {
      add_outputs<kWide>(tables, at, grad + channel * strides.c, strides, count, 0, 1, 0, 1, parts);
    }
    add_together<kWide>(tables, at, grad, strides, channel, count, parts);
    RACNN_UNROLL
    for (int s = 0; s < Strip::kRows; ++s) {
      RACNN_UNROLL
      for (int v = 0; v < Strip::kChannels; ++v) sums[s][v] += s == r ? parts[v] : T(0);
    }
  }
}

// Adds crop `number`, whose tables are made but for the weights. `made` is the round of those that are
// there.
template <typename Strip, bool kWide, typename Grad, typename Image, typename Taps, typename T>
__device__ __forceinline__ void add_crop(const ImageGradParams<Grad, Image, Taps>& p,
                                         const ImageGradTables<T, Taps>& tables, int64_t number,
                                         const Tile& tile, const Share& share, int64_t channel, int32_t count,
                                         Round& made, T (&sums)[Strip::kRows][Strip::kChannels]) {
  const int32_t row_end = tables.rows.firsts[p.tiling.rows + 1];
  const int32_t column_end = tables.columns.firsts[p.tiling.columns + 1];
  for (int32_t i = tables.rows.firsts[0]; i < row_end; i += kTabledOutputs) {
    for (int32_t j = tables.columns.firsts[0]; j < column_end; j += kTabledOutputs) {
      if (made.row != i || made.column != j) {
        made = {i, j};
        __syncthreads();  // all are done with the round before
        tables.rows.make_weights(tables.axes->y, i, lesser(i + kTabledOutputs, row_end));
        tables.columns.make_weights(tables.axes->x, j, lesser(j + kTabledOutputs, column_end));
        __syncthreads();
      }
      add_round<Strip, kWide>(p, tables, number, made, tile, share, channel, count, sums);
    }
  }
}

template <typename Strip, bool kWide, typename Grad, typename Image, typename Taps, typename T>
__device__ __forceinline__ void store_pixels(const ImageGradParams<Grad, Image, Taps>& p, int64_t image,
                                             const Share& share, int64_t channel, int32_t count,
                                             const T (&sums)[Strip::kRows][Strip::kChannels]) {
  const Strides& strides = p.problem.image_strides;
  Image* const pixels =
      p.problem.grad_images + image * strides.b + channel * strides.c + share.column * strides.x;
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    const int32_t y = share.row + r;
    if (y >= share.row_end) break;
    Pack<Image, Strip::kChannels> pack;
    RACNN_UNROLL
    for (int v = 0; v < Strip::kChannels; ++v) {
      const bool scaled = p.affine.used && v < count;
      pack.values[v] = narrow<Image>(scaled ? sums[r][v] * p.affine.scale[channel + v] : sums[r][v]);
    }
    if constexpr (kWide) {
      store_pack(pixels + y * strides.y, pack);
    } else {
      RACNN_UNROLL
      for (int v = 0; v < Strip::kChannels; ++v) {
        if (v < count) pixels[y * strides.y + v * strides.c] = pack.values[v];
      }
    }
  }
}

template <typename Grad, typename Image, typename Taps, bool kWide>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<Accumulate<Image>, true>)
    image_grad_kernel(ImageGradParams<Grad, Image, Taps> p) {
  using T = Accumulate<Image>;
  using Strip = PixelStrip<Image, kWide>;
  const ImageGradProblem<Grad, Image, Taps>& problem = p.problem;
  const ImageGradTables<T, Taps> tables(p.tiling);
  // The tile's rectangle is one of pixels: the tiling's crop is the image.
  const CropShape pixels = image_as_crop(problem.shape);
  for (int64_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const int64_t image = t / p.tiling.tiles();
    const Tile tile = tile_at(p.tiling, t % p.tiling.tiles());
    const Share share = share_of<Strip>(p.tiling, tile, pixels, threadIdx.x);
    int64_t tabled = -1;  // the crop whose tables are there
    bool reached = false;
    Round made = kNoRound;
    for (int64_t step = 0; step < p.tiling.channels; step += share.channel_step) {
      const int64_t channel = share.channel + step, left = share.channel_end - channel;
      const int32_t count =
          share.exists && left > 0 ? int32_t(lesser<int64_t>(left, p.tiling.thread_channels)) : 0;
      T sums[Strip::kRows][Strip::kChannels] = {};
      for (int64_t crop = image * problem.shape.windows; crop < (image + 1) * problem.shape.windows; ++crop) {
        if (tabled != crop) {
          reached = tables.make(problem.taps, crop, problem.shape, p.tiling, tile);
          tabled = crop;
          made = kNoRound;
        }
        if (reached) add_crop<Strip, kWide>(p, tables, crop, tile, share, channel, count, made, sums);
      }
      if (count > 0) store_pixels<Strip, kWide>(p, image, share, channel, count, sums);
    }
  }
}

template <typename Grad, typename Image, typename Taps>
bool is_wide(const ImageGradProblem<Grad, Image, Taps>& p) {
  constexpr int kChannels = PixelStrip<Image, true>::kChannels;
  const Strides &grad = p.grad_strides, &out = p.image_strides;
  return p.shape.channels >= kFewestWideChannels && grad.c == 1 && out.c == 1 &&
         can_pack<kChannels>(p.grad_output, p.shape.channels, {grad.b, grad.k, grad.y, grad.x}) &&
         can_pack<kChannels>(p.grad_images, p.shape.channels, {out.b, out.y, out.x});
}

template <bool kWide, typename Grad, typename Image, typename Taps>
cudaError_t launch_image_grad(const ImageGradProblem<Grad, Image, Taps>& p, cudaStream_t stream,
                              int64_t max_blocks) {
  using T = Accumulate<Image>;
  using Strip = PixelStrip<Image, kWide>;
  // Few channels, interleaved: one a thread, so that neighbouring threads write neighbouring addresses.
  const bool channels_fastest = p.shape.channels > 1 && p.image_strides.c < p.image_strides.x;
  const int32_t thread_channels = channels_fastest && !kWide ? 1 : Strip::kChannels;
  const Tiling tiling = make_tiling<Strip>(
      image_as_crop(p.shape),
      {channels_fastest, true, thread_channels, kMultiprocessors, kRegisters<true>, kPixelColumnLanes, 0});
  const int64_t tiles = tiling.tiles() * p.shape.batch;
  return launch(
      image_grad_kernel<Grad, Image, Taps, kWide>, dim3(unsigned(std::min(tiles, max_blocks))),
      dim3(tiling.threads()), ImageGradTables<T, Taps>::bytes(tiling), stream,
      ImageGradParams<Grad, Image, Taps>{p, tiling, tiles, AffineParams<T>(p.affine, p.shape.channels)});
}

template <typename Grad, typename Image, typename Taps>
cudaError_t compute(const ImageGradProblem<Grad, Image, Taps>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  if (p.shape.batch == 0 || p.shape.channels == 0) return cudaSuccess;
  return is_wide(p) ? launch_image_grad<true>(p, stream, max_blocks)
                    : launch_image_grad<false>(p, stream, max_blocks);
}

}  // namespace racnn
