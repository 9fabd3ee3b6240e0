// SPDX-License-Identifier: BSD-3-Clause
//
// Which outputs read a given pixel, along both axes: the tables of the image gradient (image_grad.cuh)
// for one window and one tile of pixels.
#pragma once

#include "inverse_taps.cuh"

namespace racnn {

constexpr int kFewOutputs = 64;  // a thread adds up alone

// The window at hand, in shared memory.
template <typename T, typename Taps>
struct ImageGradTables {
  using Inverse = InverseTaps<T, decltype(AxesOf<Taps>::x)>;

  AxesOf<Taps>* axes;
  Inverse columns, rows;

  static RACNN_HOST_DEVICE size_t bytes(const Tiling& tiling) {
    return sizeof(AxesOf<Taps>) + Inverse::bytes(tiling.columns) + Inverse::bytes(tiling.rows);
  }

  __device__ __forceinline__ explicit ImageGradTables(const Tiling& tiling)
      : axes(shared_memory<AxesOf<Taps>>()),
        columns(reinterpret_cast<unsigned char*>(axes + 1), tiling.columns),
        rows(reinterpret_cast<unsigned char*>(axes + 1) + Inverse::bytes(tiling.columns), tiling.rows) {}

  // Whether the crop reads any pixel of the tile; only then are there tables. The same for all threads.
  __device__ __forceinline__ bool make(const Taps& taps, int64_t crop, const CropShape& shape,
                                       const Tiling& tiling, const Tile& tile) const {
    __syncthreads();  // all are done with the window before
    if (threadIdx.x == 0) *axes = crop_axes(taps, shape, crop);
    __syncthreads();
    if (!axes->finite || !reaches(axes->x, tile.column, tiling.columns) ||
        !reaches(axes->y, tile.row, tiling.rows)) {
      return false;
    }
    columns.make_firsts(axes->x, tile.column, tiling.columns);
    rows.make_firsts(axes->y, tile.row, tiling.rows);
    __syncthreads();
    return true;
  }
};

// A round: kTabledOutputs output rows and columns of a crop, from these on.
struct Round {
  int32_t row, column;
};

constexpr Round kNoRound{-1, -1};

// One pixel and the outputs of a round that read it.
template <typename T>
struct Gather {
  T mask;
  Outputs columns, rows;

  RACNN_HOST_DEVICE bool empty() const { return columns.begin >= columns.end || rows.begin >= rows.end; }
  RACNN_HOST_DEVICE bool is_large() const {
    return !empty() && int64_t(columns.end - columns.begin) * (rows.end - rows.begin) > kFewOutputs;
  }
};

// Pixel (ty, tx) of the tile.
template <typename T, typename Taps>
__device__ __forceinline__ Gather<T> gather_at(const ImageGradTables<T, Taps>& tables, const Round& round,
                                               int32_t tx, int32_t ty) {
  return {tables.columns.masks[tx] * tables.rows.masks[ty], tables.columns.reading(tx, round.column),
          tables.rows.reading(ty, round.row)};
}

}  // namespace racnn
