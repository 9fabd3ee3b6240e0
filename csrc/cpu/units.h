// SPDX-License-Identifier: BSD-3-Clause
//
// How the work is cut: images into planes, planes into units of about kUnitSize numbers, a group of whole
// planes or some rows of one. The cut depends on the shape alone, so partial sums, and with them results, do
// not depend on the number of threads.
#pragma once

#include "../problems.h"

namespace racnn::cpu {

// A *plane* is what one pass walks over: a channel of a contiguous image, or a whole channels_last image,
// whose lines hold C interleaved numbers a pixel.
struct PlaneLayout {
  int64_t planes;  // of an image or crop
  int64_t step;    // numbers a pixel in a line
};

RACNN_INLINE PlaneLayout plane_layout(int64_t channels, const Strides& images) {
  const bool interleaved = channels > 1 && images.c == 1 && images.x == channels;
  return interleaved ? PlaneLayout{1, channels} : PlaneLayout{channels, 1};
}

// The pixels [begin, end) of one axis.
struct Range {
  int32_t begin = INT32_MAX, end = 0;

  RACNN_INLINE int64_t size() const { return end > begin ? end - begin : 0; }
  RACNN_INLINE void add(const Range& other) {
    begin = lesser(begin, other.begin);
    end = greater(end, other.end);
  }
};

struct Box {
  Range rows, columns;

  RACNN_INLINE int64_t size() const { return rows.size() * columns.size(); }
  RACNN_INLINE void add(const Box& other) {
    rows.add(other.rows);
    columns.add(other.columns);
  }
};

constexpr int64_t kUnitSize = 16384;

// How rows are cut where a plane is a unit of its own or more: into pieces of so many numbers, and of rows
// that are worked on together.
struct Cut {
  int64_t size = kUnitSize, rows = 1;
};

// Of runs of any length, which cost many times as much a number; cells hold that many rows (cells.h).
constexpr Cut kCutOfRuns{kUnitSize / 8, 16};

constexpr int64_t kChannelGroup = 16;  // planes that are turned together (channel_cells.h)

struct Unit {
  int64_t item;  // crop or image
  int64_t plane_begin, plane_end;
  int32_t row_begin, row_end;
};

struct Units {
  int64_t items;
  int64_t planes, planes_each, groups;
  int64_t rows, rows_each, chunks;
  bool by_channels;  // items are images, rows their windows (channel_cells.h)

  // `planes` planes of `rows` lines of `line` numbers an item.
  static RACNN_INLINE Units make(int64_t items, int64_t planes, int64_t rows, int64_t line,
                                 const Cut& cut = {}) {
    Units u{};
    u.items = items;
    u.planes = planes;
    u.rows = rows;
    u.planes_each = at_least_one(kUnitSize / at_least_one(rows * line));
    u.groups = divide_up(planes, u.planes_each);
    u.rows_each = u.planes_each > 1 ? rows : lesser(rows, at_least_one(cut.size / at_least_one(line)));
    u.chunks = at_least_one(divide_up(rows, at_least_one(u.rows_each)));
    const int64_t equal = at_least_one(divide_up(rows, u.chunks));
    u.rows_each = u.chunks > 1 ? divide_up(equal, cut.rows) * cut.rows : equal;
    u.chunks = at_least_one(divide_up(rows, u.rows_each));
    return u;
  }

  // Groups of channels of each image, with so many of its windows at a time.
  static RACNN_INLINE Units of_channels(const CropShape& s, int64_t windows_each) {
    Units u{};
    u.items = s.batch;
    u.planes = s.channels;
    u.planes_each = kChannelGroup;
    u.groups = divide_up(s.channels, kChannelGroup);
    u.rows = s.windows;
    u.rows_each = at_least_one(lesser(s.windows, windows_each));
    u.chunks = at_least_one(divide_up(s.windows, u.rows_each));  // without windows, too
    u.by_channels = true;
    return u;
  }

  RACNN_INLINE int64_t per_item() const { return groups * chunks; }

  RACNN_INLINE Unit unit(int64_t index) const {
    const int64_t part = index % per_item();
    const int64_t plane = part / chunks * planes_each, row = part % chunks * rows_each;
    const int64_t plane_end = plane + planes_each, row_end = row + rows_each;
    return {index / per_item(), plane, plane_end < planes ? plane_end : planes, int32_t(row),
            int32_t(row_end < rows ? row_end : rows)};
  }

 private:
  static RACNN_INLINE int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0); }
  static RACNN_INLINE int64_t at_least_one(int64_t v) { return v < 1 ? 1 : v; }
};

constexpr int64_t kMostTurned = 8192;  // pixels: a group of them fits the second level of the cache

// Whether `planes` planes of a crop go by groups of channels (channel_cells.h), if `pixels` pixels are turned
// for it; in the time that turning one takes, from where crops took the same either way. Not a matter of how
// many windows there are: a crop's gradient is the same to the bit alone and with others.
RACNN_INLINE bool channels_pay(int64_t pixels, int64_t planes, const CropShape& s) {
  const double outputs = double(s.out_height) * s.out_width;
  const double groups = double((planes + kChannelGroup - 1) / kChannelGroup);
  return groups * (double(pixels) + 3 * outputs) <
         800 + double(planes) * (10.0 * s.out_height + 0.4 * outputs);
}

// Whether all windows of an image share its turned channels.
RACNN_INLINE bool turns_maps(const CropShape& s, const Strides& images) {
  const int64_t pixels = int64_t(s.height) * s.width;
  // A fourth of the map for each crop: of as many windows, or of a small one.
  return plane_layout(s.channels, images).step == 1 && pixels <= kMostTurned &&
         channels_pay(pixels / 4, s.channels, s);
}

// So many windows at a time that turning the map for them does not count.
RACNN_INLINE int64_t windows_of_a_turn(const CropShape& s) {
  constexpr int64_t kOutputsAPixel = 4;
  const int64_t outputs = int64_t(s.out_height) * s.out_width;
  return outputs == 0 ? 1 : (kOutputsAPixel * s.height * s.width + outputs - 1) / outputs;
}

constexpr int64_t kCacheLine = 64;  // bytes

constexpr int32_t kRowsAhead = 8;  // output rows, for which image rows are fetched

}  // namespace racnn::cpu
