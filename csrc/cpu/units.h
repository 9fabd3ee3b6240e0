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

constexpr int64_t kUnitSize = 16384;

struct Unit {
  int64_t item;  // crop or image
  int64_t plane_begin, plane_end;
  int32_t row_begin, row_end;
};

struct Units {
  int64_t planes, planes_each, groups;
  int64_t rows, rows_each, chunks;

  // `planes` planes of `rows` lines of `line` numbers an item.
  static RACNN_INLINE Units make(int64_t planes, int64_t rows, int64_t line) {
    const auto divide_up = [](int64_t a, int64_t b) { return a / b + (a % b != 0); };
    const auto at_least_one = [](int64_t v) { return v < 1 ? 1 : v; };
    Units u{};
    u.planes = planes;
    u.rows = rows;
    u.rows_each = at_least_one(kUnitSize / at_least_one(line));
    u.rows_each = u.rows_each < rows ? u.rows_each : rows;
    u.chunks = divide_up(rows, u.rows_each);
    u.rows_each = divide_up(rows, greater<int64_t>(u.chunks, 1));
    u.rows_each = at_least_one(u.rows_each);
    u.planes_each = u.chunks > 1 ? 1 : at_least_one(kUnitSize / at_least_one(rows * line));
    u.groups = divide_up(planes, u.planes_each);
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
};

constexpr int64_t kCacheLine = 64;  // bytes

constexpr int32_t kRowsAhead = 8;  // output rows, for which image rows are fetched

}  // namespace racnn::cpu
