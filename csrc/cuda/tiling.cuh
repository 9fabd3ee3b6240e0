// SPDX-License-Identifier: BSD-3-Clause
//
// Which thread computes what, for the kernels that walk over crops.
//
// A tile is a rectangle of one crop times a range of channels; a block takes one tile at a time. Its threads
// form a grid of lanes: column lanes x row lanes x channel lanes, so that a 14 x 14 crop fills a block as
// well as a 224 x 224 one does. What varies fastest from thread to thread is what varies fastest in memory:
// the columns, or, if the crops are channels_last, the channels. A thread holds a *strip* at a time, kRows
// consecutive rows of its kColumns columns and kChannels channels, and walks over the strips and channels of
// the tile that are its own.
#pragma once

#include <algorithm>

#include "../problems.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kThreads = 256;  // in a block at most
// On a multiprocessor. Three leave a thread 80 registers, enough for the loads of a strip to be on their way
// together; wide strips need more registers and fewer threads.
template <typename T, bool kWide>
constexpr int kResidentBlocks = sizeof(T) == 8 ? 1
                                : kWide        ? 2
                                               : 3;
constexpr int32_t kMultiprocessorRegisters = 65536;
// Of a thread: what that leaves for float32, in units of 8. float64 has no bound, and does with as many.
template <bool kWide>
constexpr int32_t kRegisters = kMultiprocessorRegisters / (kThreads * kResidentBlocks<float, kWide>) / 8 * 8;
constexpr int kMaxRowLanes = 64;   // with kMaxTileRows, bounds a block's row tables to shared memory's 48 KB
constexpr int kMaxTileRows = 256;  //
constexpr int kMaxChannelLanes = 32;     // a warp's worth of neighbouring channels is enough to coalesce
constexpr int64_t kMostWaves = 8;        // aimed at; the bounds on a tile may leave more
constexpr int64_t kPrologueStrips = 4;   // what a tile costs before its first strip, in strips
constexpr int64_t kTargetBlocks = 1024;  // of sums in parts, on any GPU

// Channels of a thread at a time: those of one word if `kWide`.
template <typename Crop, bool kWide>
constexpr int kStripChannels = !kWide              ? 1
                               : sizeof(Crop) == 8 ? 2
                                                   : 4;

constexpr int64_t kFewestWideChannels = 8;

struct Tiling {
  int32_t column_lanes, row_lanes, channel_lanes;
  int32_t thread_channels;  // of a thread at a time: Strip::kChannels or less
  bool packed;              // the columns of a thread are neighbours, moved as one word
  int32_t column_step;      // from one column of a thread to its next
  bool channels_fastest;    // channel lanes, not column lanes, are neighbouring threads
  int32_t columns, rows;    // of a tile
  int64_t channels;         // of a tile
  int64_t column_tiles, row_tiles, channel_tiles;  // of a crop

  RACNN_HOST_DEVICE int64_t tiles() const { return column_tiles * row_tiles * channel_tiles; }
  int threads() const { return (column_lanes * row_lanes * channel_lanes + kWarp - 1) / kWarp * kWarp; }
};

struct Tile {
  int32_t column, row;  // where it begins
  int64_t channel;
};

RACNN_HOST_DEVICE Tile tile_at(const Tiling& tiling, int64_t index) {
  const int64_t rest = index / tiling.column_tiles;
  return {int32_t(index % tiling.column_tiles) * tiling.columns,
          int32_t(rest % tiling.row_tiles) * tiling.rows, rest / tiling.row_tiles * tiling.channels};
}

// What is a thread's of a tile: strips at row, row + row_step, ... and at channel, channel + channel_step,
// ...
struct Share {
  int32_t column;  // its first
  int32_t row, row_step, row_end;
  int64_t channel, channel_step, channel_end;
  bool exists;  // blocks are whole warps and tiles overlap the crop's border: some threads have nothing
};

template <typename Strip>
RACNN_HOST_DEVICE Share share_of(const Tiling& tiling, const Tile& tile, const CropShape& shape,
                                 int32_t thread) {
  const int32_t fastest = tiling.channels_fastest ? tiling.channel_lanes : tiling.column_lanes;
  const int32_t middle = tiling.channels_fastest ? tiling.column_lanes : tiling.row_lanes;
  const int32_t a = thread % fastest, b = thread / fastest % middle, c = thread / fastest / middle;
  const int32_t column_lane = tiling.channels_fastest ? b : a, row_lane = tiling.channels_fastest ? c : b;
  const int32_t channel_lane = tiling.channels_fastest ? a : c;
  Share share;
  share.column = tile.column + column_lane * (tiling.packed ? Strip::kColumns : 1);
  share.row = tile.row + row_lane * Strip::kRows;
  share.row_step = tiling.row_lanes * Strip::kRows;
  share.row_end = lesser(tile.row + tiling.rows, shape.out_height);
  share.channel = tile.channel + channel_lane * tiling.thread_channels;
  share.channel_step = tiling.channel_lanes * tiling.thread_channels;
  share.channel_end = lesser(tile.channel + tiling.channels, shape.channels);
  share.exists = c < (tiling.channels_fastest ? tiling.row_lanes : tiling.channel_lanes) &&
                 share.column < shape.out_width;
  return share;
}

template <typename T>
T divide_up(T a, T b) {
  return a / b + (a % b != 0);
}

// The largest part of `total`, at most `limit`, of which parts of equal size cover it.
template <typename T>
T balanced(T total, T limit) {
  return divide_up(total, divide_up(total, std::max<T>(limit, 1)));
}

struct TilingOptions {
  bool channels_fastest, packed;
  int32_t thread_channels;
  int64_t multiprocessors;
  int32_t registers;  // of a thread
  int32_t max_column_lanes = kThreads;
  int32_t max_rows = kMaxTileRows;  // of a tile, unless one step of all row lanes has more
};

// Tiles that fill the GPU's blocks in whole waves: of the numbers of waves the one that takes the least time,
// in strips one after another. What a block computes once, tables and addresses, serves all strips of its
// tile.
template <typename Strip>
Tiling make_tiling(const CropShape& shape, const TilingOptions& options) {
  Tiling t{};
  const int32_t column_groups = divide_up(shape.out_width, Strip::kColumns);
  const int32_t strips = divide_up(shape.out_height, Strip::kRows);
  const int64_t channel_groups = divide_up<int64_t>(shape.channels, options.thread_channels);
  t.thread_channels = options.thread_channels;
  t.channels_fastest = options.channels_fastest;
  t.channel_lanes = t.channels_fastest ? int32_t(balanced<int64_t>(channel_groups, kMaxChannelLanes)) : 1;
  t.column_lanes = balanced(column_groups, std::min(options.max_column_lanes, kThreads / t.channel_lanes));
  t.row_lanes = balanced(strips, std::min(kMaxRowLanes, kThreads / (t.channel_lanes * t.column_lanes)));
  if (!t.channels_fastest) {
    t.channel_lanes = int32_t(balanced<int64_t>(channel_groups, kThreads / (t.column_lanes * t.row_lanes)));
  }
  t.packed = options.packed;
  t.column_step = t.packed ? 1 : t.column_lanes;
  t.columns = t.column_lanes * Strip::kColumns;
  t.column_tiles = divide_up(shape.out_width, t.columns);

  const int64_t row_steps = divide_up(strips, t.row_lanes);
  const int64_t channel_steps = divide_up<int64_t>(channel_groups, t.channel_lanes);
  const int64_t most_row_steps = std::max<int64_t>(1, options.max_rows / (t.row_lanes * Strip::kRows));
  const int64_t resident =
      options.multiprocessors * (kMultiprocessorRegisters / (options.registers * t.threads()));
  const int64_t rectangles = shape.batch * shape.windows * t.column_tiles;
  int64_t least_time = INT64_MAX;
  for (int64_t waves = 1; waves <= kMostWaves; ++waves) {
    const int64_t parts = std::max<int64_t>(1, waves * resident / rectangles);
    const int64_t of_channels = balanced(channel_steps, divide_up(row_steps * channel_steps, parts));
    const int64_t row_parts = std::max<int64_t>(1, parts / divide_up(channel_steps, of_channels));
    const int64_t of_rows = balanced(row_steps, std::min(most_row_steps, divide_up(row_steps, row_parts)));
    const int64_t blocks = rectangles * divide_up(row_steps, of_rows) * divide_up(channel_steps, of_channels);
    const int64_t time = divide_up(blocks, resident) * (kPrologueStrips + of_channels * of_rows);
    if (time >= least_time) continue;
    least_time = time;
    t.channels = of_channels * t.channel_lanes * t.thread_channels;
    t.rows = int32_t(of_rows) * t.row_lanes * Strip::kRows;
  }
  t.channel_tiles = divide_up(shape.channels, t.channels);
  t.row_tiles = divide_up(shape.out_height, t.rows);
  return t;
}

}  // namespace racnn
