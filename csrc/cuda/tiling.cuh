// SPDX-License-Identifier: BSD-3-Clause
//
// Which block computes what. The result, a crop or an image, is cut into tiles: a rectangle of one of its
// rows and columns, times a range of *planes*. A plane is one channel or, where channels are the fastest in
// memory, as many as are interleaved. A block takes one tile at a time, in *slots*: a row of one plane each.
#pragma once

#include <algorithm>

#include "../problems.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kThreads = 256;    // in a block
constexpr int kMostLanes = 128;  // columns of a tile times interleaved channels: a line has kThreads units
// Of a thread at a time. With smaller elements a thread makes more of them in one piece (kUnit), so that
// there are enough threads for as many more slots.
template <typename Source>
constexpr int kPassSlots = sizeof(Source) < 4 ? 8 : 4;
constexpr int kMostSlotLanes = 32;
constexpr int kMostRows = 64;      // of a tile, bounds its tables
constexpr int64_t kMostFlat = 32;  // channels of a plane, if all of them are

// Resident on a multiprocessor, as many as the registers of a thread allow: 48 or 64 with two entries in
// words, 80 with other runs, 128 with filters.
template <typename P, bool kWords>
constexpr int kResidentBlocks = [] {
  constexpr size_t kBytes = sizeof(typename P::Source);
  if (kBytes == 8) return P::kTwoEntries ? 4 : 1;
  if (P::kIsFilter || (P::kInverse && kBytes < 4)) return 2;
  if (!P::kTwoEntries || !kWords) return 3;
  return kBytes == 4 ? 5 : 4;
}();

template <typename T>
T divide_up(T a, T b) {
  return a / b + (a % b != 0);
}

// The largest part of `total`, at most `limit`, of which parts of equal size cover it.
template <typename T>
T balanced(T total, T limit) {
  return divide_up(total, divide_up(total, std::max<T>(limit, 1)));
}

// a / b for a < 2^21, b > 0: in a few instructions, where an integer division takes thirty. For what the
// device alone knows.
__device__ __forceinline__ int32_t quotient(int32_t a, int32_t b) {
  return int32_t(__fdividef(float(a) + 0.5f, float(b)));
}

// Divides by a number that the host knows (Granlund and Montgomery, "Division by invariant integers using
// multiplication", 1994, figure 4.1), what is below 2^31.
struct Divisor {
  uint32_t by = 1, magic = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t by) : by(uint32_t(by)) {
    while ((int64_t(1) << shift) < by) ++shift;
    magic = uint32_t((((uint64_t(1) << shift) - this->by) << 32) / this->by + 1);
  }

  __device__ __forceinline__ int32_t quotient(int32_t n) const {
    return int32_t((__umulhi(uint32_t(n), magic) + uint32_t(n)) >> shift);
  }
};

struct Tiling {
  int32_t interleaved;            // channels of a plane
  int32_t columns, rows, planes;  // of a tile
  int32_t column_tiles, row_tiles, plane_tiles;
  int32_t slot_lanes;  // slots that all threads together have in hand, kPassSlots times

  RACNN_HOST_DEVICE int32_t tiles() const { return column_tiles * row_tiles * plane_tiles; }
  RACNN_HOST_DEVICE int32_t lanes() const { return columns * interleaved; }
};

struct Tile {
  int32_t column, row, plane;     // where it begins
  int32_t columns, rows, planes;  // as far as the result goes
};

struct TilingOptions {
  int32_t height, width;  // of a result
  int32_t planes;
  int64_t results;
  int32_t interleaved;
  int32_t pass_slots;                 // of a thread
  int64_t multiprocessors, resident;  // blocks on each of them
  int32_t most_rows, most_planes;
  bool one_pass = false;  // tiles as small as all threads can hold at a time
};

// How many rows or planes `stride` elements apart a tile may have, for offsets in it to fit into 32 bits.
inline int32_t most_within(int64_t stride) {
  return int32_t(std::clamp<int64_t>((int64_t(1) << 30) / std::max<int64_t>(stride, 1), 1, kMostRows));
}

// Tiles that fill the GPU in whole waves of blocks: of the numbers of waves and of planes the ones that take
// the least time, in passes of all threads. What a block computes once, tables and addresses, serves all
// passes of its tile, and the fewer rows it has the more source rows it shares with the tiles beside it.
// Blocks wait for memory together, but execute their instructions one after the other.
inline Tiling make_tiling(const TilingOptions& o) {
  constexpr int64_t kMostWaves = 8;
  constexpr double kPrologue = 3, kPrologueIssue = 1.0, kPassIssue = 0.2;
  const int64_t capacity = o.multiprocessors * o.resident;
  const int32_t planes = o.planes;
  Tiling best{};
  best.interleaved = o.interleaved;
  best.columns = balanced(o.width, std::max(kMostLanes / o.interleaved, 1));
  best.column_tiles = divide_up(o.width, best.columns);
  best.slot_lanes = std::min(kThreads / (best.columns * o.interleaved), kMostSlotLanes);
  const int64_t pass = int64_t(o.pass_slots) * best.slot_lanes;
  double least = 0;
  for (int64_t n = 1; n < o.resident + kMostWaves; ++n) {  // blocks of a multiprocessor; from a wave on waves
    const int64_t blocks = n < o.resident ? n * o.multiprocessors : (n - o.resident + 1) * capacity;
    const int64_t parts = std::max<int64_t>(1, blocks / (o.results * best.column_tiles));
    for (int32_t most = std::min(planes, o.most_planes); most > 0; most /= 2) {
      Tiling t = best;
      t.planes = balanced(planes, most);
      t.plane_tiles = divide_up(planes, t.planes);
      const int64_t row_parts = std::max<int64_t>(1, parts / t.plane_tiles);
      int64_t rows = std::min<int64_t>(o.most_rows, divide_up<int64_t>(o.height, row_parts));
      if (o.one_pass) rows = std::min(rows, std::max<int64_t>(1, pass / t.planes));
      rows = balanced<int64_t>(o.height, rows);
      if (rows > pass) rows = std::min<int64_t>(o.most_rows, divide_up(rows, pass) * pass);
      t.rows = int32_t(rows);
      t.row_tiles = divide_up(o.height, t.rows);
      const int64_t passes =
          rows < pass ? divide_up<int64_t>(t.planes, pass / rows) : t.planes * divide_up(rows, pass);
      if (o.one_pass && passes > 1 && t.planes > 1) continue;
      const double latency = kPrologue + double(passes) * (1 + 0.5 / t.rows);
      const double issue = kPrologueIssue + kPassIssue * double(passes);
      const auto wave = [&](int64_t blocks) {
        return blocks == 0 ? 0 : std::max(latency, issue * double(divide_up(blocks, o.multiprocessors)));
      };
      const int64_t blocks = o.results * t.tiles();
      const double time = double(blocks / capacity) * wave(capacity) + wave(blocks % capacity);
      if (least > 0 && time >= least) continue;
      least = time;
      best = t;
    }
  }
  return best;
}

// The divisors for the way from a block and a thread to what they compute.
struct TilingDivisors {
  Divisor tiles, column_tiles, row_tiles, lanes, interleaved, windows;

  TilingDivisors() = default;
  TilingDivisors(const Tiling& t, int64_t windows)
      : tiles(t.tiles()),
        column_tiles(t.column_tiles),
        row_tiles(t.row_tiles),
        lanes(t.lanes()),
        interleaved(t.interleaved),
        windows(std::max<int64_t>(windows, 1)) {}
};

__device__ __forceinline__ Tile tile_at(const Tiling& t, const TilingDivisors& d, int32_t index,
                                        int32_t height, int32_t width, int32_t planes) {
  const int32_t rest = d.column_tiles.quotient(index), column = index - rest * t.column_tiles;
  const int32_t plane = d.row_tiles.quotient(rest), row = rest - plane * t.row_tiles;
  Tile tile{column * t.columns, row * t.rows, plane * t.planes, 0, 0, 0};
  tile.columns = lesser(t.columns, width - tile.column);
  tile.rows = lesser(t.rows, height - tile.row);
  tile.planes = lesser(t.planes, planes - tile.plane);
  return tile;
}

// Planes and windows are counted in 32 bits.
inline bool is_countable(const CropShape& shape) {
  return shape.channels <= kMaxSide && shape.windows <= kMaxSide;
}

// How many channels make up a plane: all of them, or so many that a row of a warp's threads moves whole
// sectors, where source and result keep channels beside each other; otherwise 1.
inline int32_t interleaved_channels(int32_t unit, int64_t channels, int32_t width, const Strides& source,
                                    const Strides& result) {
  constexpr int32_t kMost = 64;
  if (channels == 1 || source.c != 1 || result.c != 1 || width > kMaxSide / kThreads) return 1;
  const bool flat = source.x == channels && result.x == channels;
  if (flat && channels <= kMostFlat) return int32_t(channels);
  for (int32_t c = kMost; c >= 8; c -= unit) {
    if (channels % c == 0) return c;
  }
  return flat && channels <= kMostLanes ? int32_t(channels) : 1;
}

}  // namespace racnn
