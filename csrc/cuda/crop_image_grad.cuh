// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of the images, gathered: grad_images[b, c, y, x] = sum_k sum_{i,j} b_i(y) a_j(x) g[b, k, c, i, j], over
// the rectangle of outputs that read pixel (y, x) (inverse_taps.cuh). No atomics, and each element is written once.
//
// Grid: a block takes tiles of one image (tiling.cuh, the image in the place of the crop); a thread holds kRows pixels
// of a column times 4 channels as sums in registers while the block goes through the windows k in order. Windows
// that do not reach the tile cost a comparison of ranges: most tiles of a large image only store zeros, at
// the memory's speed. For the others the block tabulates the outputs of its rows and columns once for all channels.
//
// Few outputs read a pixel at a moderate zoom, 4 at zoom 1: its own thread adds them up. Where many do (a
// strong zoom, or a window over the border that repeats the edge pixel) the warp works on one pixel together.
#pragma once

#include "affine.cuh"
#include "inverse_taps.cuh"
#include "reduce.cuh"

namespace racnn {

// Pixels of one thread. Channels beyond the first neighbour (kWide: one word) or are loaded one by one.
template <typename Image, bool kWide>
struct PixelStrip {
  static constexpr int kChannels = sizeof(Image) == 8 && kWide ? 2 : 4;
  static constexpr int kColumns = 1;
  static constexpr int kRows = sizeof(Image) == 8 ? 4 : 8;
};

constexpr int kPixelColumnLanes = kWarp;  // about square tiles meet the fewest windows
constexpr int kFewOutputs = 64;           // a thread adds up alone
constexpr int kCoopColumns = 8;           // lanes of a warp that works together: 8 columns x 4 rows of outputs

template <typename Grad, typename Image>
struct CropImageGradParams {
  ImageGradProblem<Grad, Image> problem;  // of one chunk of channels
  Tiling tiling;                          // of an image
  int64_t tiles;                          // of all images
  AffineChunk<Accumulate<Image>> affine;
};

// One pixel and the outputs of crop k that read it.
struct Gather {
  int32_t x, y;
  int32_t j_begin, j_end, i_begin, i_end;

  RACNN_HOST_DEVICE int64_t outputs() const { return int64_t(j_end - j_begin) * (i_end - i_begin); }
};

template <typename T>
struct ImageGradTables {
  Axes<T>* axes;
  InverseTaps<T> columns, rows;

  static RACNN_HOST_DEVICE size_t bytes(const Tiling& tiling) {
    return sizeof(Axes<T>) + InverseTaps<T>::bytes(tiling.columns) + InverseTaps<T>::bytes(tiling.rows);
  }

  __device__ __forceinline__ explicit ImageGradTables(const Tiling& tiling)
      : axes(shared_memory<Axes<T>>()),
        columns(&axes->x, reinterpret_cast<unsigned char*>(axes + 1), tiling.columns),
        rows(&axes->y, reinterpret_cast<unsigned char*>(axes + 1) + InverseTaps<T>::bytes(tiling.columns),
             tiling.rows) {}

  __device__ __forceinline__ void make(const WindowSpec<T>& windows, int64_t crop, const CropShape& shape,
                                       const Tiling& tiling, const Tile& tile) const {
    __syncthreads();  // all are done with the tables of the window before
    if (threadIdx.x == 0) *axes = make_axes(windows, crop, shape);
    __syncthreads();
    columns.make_firsts(tile.column, tiling.columns);
    rows.make_firsts(tile.row, tiling.rows);
    __syncthreads();
    columns.make_positions(tiling.columns);
    rows.make_positions(tiling.rows);
    __syncthreads();
  }
};

// Whether crop `crop` reads any pixel of the tile. The same for all threads.
template <typename T>
__device__ __forceinline__ bool reaches(const WindowSpec<T>& windows, int64_t crop, const CropShape& shape,
                                        const Tiling& tiling, const Tile& tile) {
  const Axes<T> axes = make_axes(windows, crop, shape);
  return axes.finite && sample_position(axes.x, shape.out_width - 1) > T(tile.column - 1) &&
         sample_position(axes.x, 0) < T(tile.column + tiling.columns) &&
         sample_position(axes.y, shape.out_height - 1) > T(tile.row - 1) &&
         sample_position(axes.y, 0) < T(tile.row + tiling.rows);
}

// sums[v] += weight * g[c + v] for the first `count` channels.
template <bool kWide, int kChannels, typename Grad, typename T>
__device__ __forceinline__ void load_channels(const Grad* grad, int64_t stride, int32_t count,
                                              Pack<Grad, kChannels>& values) {
  if constexpr (kWide) {
    values = load_pack<kChannels>(grad);
  } else {
    RACNN_UNROLL
    for (int v = 0; v < kChannels; ++v) {
      if (v < count) values.values[v] = __ldg(grad + v * stride);
    }
  }
}
