// SPDX-License-Identifier: BSD-3-Clause
//
// Which thread computes what, for the kernels that walk over crops.
//
// A tile is a rectangle of one crop times a range of channels; a block takes one tile at a time. Its threads form a
// grid of lanes: column lanes x row lanes x channel lanes, so that a 14 x 14 crop fills a block as well as a
// 224 x 224 one does. What varies fastest from thread to thread is what varies fastest in memory: the columns,
// or, if the crops are channels_last, the channels. A thread holds a *strip* at a time, kRows consecutive rows of
// its kColumns columns and kChannels channels, and walks over the strips and channels of the tile that are its own.
#pragma once

#include <algorithm>

#include "../crop.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kThreads = 256;        // in a block at most
template <typename T>
constexpr int kResidentBlocks = sizeof(T) == 8 ? 2 : 3;  // on a multiprocessor: leaves 128 or 80 registers a thread
constexpr int kMaxRowLanes = 64;     // with kMaxTileRows, bounds a block's row tables to shared memory's 48 KB
constexpr int kMaxTileRows = 256;    //
constexpr int kMaxChannelLanes = 32;  // a warp's worth of neighbouring channels is enough to coalesce
constexpr int64_t kTargetBlocks = 1024;  // about eight for each of the 132 multiprocessors of an H100

// The strip of a thread. Crops of 2 and 1 bytes an element get two neighbouring columns, to be stored as one word;
// wide ones 4 channels. Few enough elements that a strip's loads are all in flight at once without spilling.
template <typename Crop, bool kWide>
struct Strip {
  static constexpr int kChannels = !kWide ? 1 : sizeof(Crop) == 8 ? 2 : 4;
  static constexpr int kColumns = kWide || sizeof(Crop) > 2 ? 1 : 2;
  static constexpr int kRows = kChannels * kColumns == 1 && sizeof(Crop) <= 4 ? 4 : 2;
};

struct Tiling {
  int32_t column_lanes, row_lanes, channel_lanes;
  int32_t column_step;     // from one column of a thread to its next
  bool channels_fastest;   // channel lanes, not column lanes, are neighbouring threads
  int32_t columns, rows;   // of a tile
  int64_t channels;        // of a tile
  int64_t column_tiles, row_tiles, channel_tiles;  // of a crop

  RACNN_HOST_DEVICE int64_t tiles() const { return column_tiles * row_tiles * channel_tiles; }
  int threads() const { return (column_lanes * row_lanes * channel_lanes + kWarp - 1) / kWarp * kWarp; }
};

template <typename T>
RACNN_HOST_DEVICE T lesser(T a, T b) {
  return a < b ? a : b;
}

struct Tile {
  int32_t column, row;  // where it begins
  int64_t channel;
};

RACNN_HOST_DEVICE Tile tile_at(const Tiling& tiling, int64_t index) {
  const int64_t rest = index / tiling.column_tiles;
  return {int32_t(index % tiling.column_tiles) * tiling.columns, int32_t(rest % tiling.row_tiles) * tiling.rows,
          rest / tiling.row_tiles * tiling.channels};
}

struct Lane {
  int32_t column, row, channel;
  bool exists;  // a block is whole warps: its last threads may be none
};

RACNN_HOST_DEVICE Lane lane_at(const Tiling& tiling, int32_t thread) {
  const int32_t fastest = tiling.channels_fastest ? tiling.channel_lanes : tiling.column_lanes;
  const int32_t middle = tiling.channels_fastest ? tiling.column_lanes : tiling.row_lanes;
  const int32_t a = thread % fastest, b = thread / fastest % middle, c = thread / fastest / middle;
  if (tiling.channels_fastest) return {b, c, a, c < tiling.row_lanes};
  return {a, b, c, c < tiling.channel_lanes};
}

template <typename T>
T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

// The largest part of `total`, at most `limit`, of which parts of equal size cover it.
template <typename T>
T balanced(T total, T limit) {
  return divide_up(total, divide_up(total, std::max<T>(limit, 1)));
}

// `packed`: a thread's columns are neighbours. The tiles are as large as leaves kTargetBlocks of them: what a
// block computes once, tables and addresses, then serves many outputs.
template <typename Strip>
Tiling make_tiling(const CropShape& shape, bool channels_fastest, bool packed) {
  Tiling t{};
  const int32_t column_groups = divide_up(shape.out_width, Strip::kColumns);
  const int32_t strips = divide_up(shape.out_height, Strip::kRows);
  const int64_t channel_groups = divide_up<int64_t>(shape.channels, Strip::kChannels);
  t.channels_fastest = channels_fastest;
  t.channel_lanes = channels_fastest ? int32_t(balanced<int64_t>(channel_groups, kMaxChannelLanes)) : 1;
  t.column_lanes = balanced(column_groups, kThreads / t.channel_lanes);
  t.row_lanes = balanced(strips, std::min(kMaxRowLanes, kThreads / (t.channel_lanes * t.column_lanes)));
  if (!channels_fastest) {
    t.channel_lanes = int32_t(balanced<int64_t>(channel_groups, kThreads / (t.column_lanes * t.row_lanes)));
  }
  const int32_t row_steps = divide_up(strips, t.row_lanes);
  const int64_t channel_steps = divide_up<int64_t>(channel_groups, t.channel_lanes);
  t.column_step = packed ? 1 : t.column_lanes;
  t.columns = t.column_lanes * Strip::kColumns;
  t.column_tiles = divide_up(shape.out_width, t.columns);

  const int64_t steps = shape.batch * shape.windows * t.column_tiles * row_steps * channel_steps;
  const int64_t steps_per_tile = std::max<int64_t>(1, steps / kTargetBlocks);
  const int64_t channel_steps_per_tile = balanced(channel_steps, steps_per_tile);
  const int64_t most_rows = std::max<int64_t>(1, kMaxTileRows / (t.row_lanes * Strip::kRows));
  const int64_t row_steps_per_tile =
      balanced<int64_t>(row_steps, std::min(most_rows, steps_per_tile / channel_steps_per_tile));
  t.channels = channel_steps_per_tile * t.channel_lanes * Strip::kChannels;
  t.channel_tiles = divide_up(shape.channels, t.channels);
  t.rows = int32_t(row_steps_per_tile) * t.row_lanes * Strip::kRows;
  t.row_tiles = divide_up(shape.out_height, t.rows);
  return t;
}

}  // namespace racnn
