// SPDX-License-Identifier: BSD-3-Clause
//
// Taps of two entries: the rows of the source that a row of a tile reads, the pixels that a column reads, and
// the lines in which both are found.
#pragma once

#include "result_share.cuh"

namespace racnn {

// Two rows of the source with their weights; where there is none to read, the line is all `w_lower`.
template <typename T>
struct alignas(16) RowPair {
  int64_t lower, upper;  // in bytes; both are read, as one row may stand for the other
  T w_lower, w_upper;
};

template <typename Axis, typename T>
RACNN_HOST_DEVICE RowPair<T> row_pair(const Axis& axis, int32_t i, int64_t row_bytes, T nothing) {
  Tap<T> tap = make_tap(axis, i);
  if (nothing != T(0) || (tap.lower == kOutside && tap.upper == kOutside)) return {-1, -1, nothing, nothing};
  // An entry outside has weight zero: no pixel is touched that the formula does not touch (0 * NaN is NaN).
  if (tap.lower == kOutside) tap.lower = tap.upper;
  if (tap.upper == kOutside) tap.upper = tap.lower;
  return {tap.lower * row_bytes, tap.upper * row_bytes, tap.w_lower, tap.w_upper};
}

template <typename T>
struct ColumnPair {
  int32_t pixel;  // the lower one, in [-2, size]; of a table it may be any
  T w_lower, w_upper;
};

template <typename Axis>
RACNN_HOST_DEVICE auto column_pair(const Axis& axis, int32_t j) {
  const auto tap = make_tap(axis, j);
  return ColumnPair<decltype(tap.w_lower)>{clamp_to(lower_pixel(axis, j), -2, axis.size), tap.w_lower,
                                           tap.w_upper};
}

// A line of all pixels between the first and the last column's or, if that is less, of each column's.
template <bool kWords, typename P, typename Column>
struct PairLines {
  using Source = typename P::Source;
  using Lines = LineSource<Source, kWords>;
  static constexpr int32_t kCount = kUnit<Source>;

  Lines source;
  const Column* columns;
  int32_t channels, origin, column_units, units, pitch;
  bool sparse;

  __device__ __forceinline__ PairLines(const P& p, const Tile& tile, const Column* columns)
      : source(line_source<kWords>(p)), columns(columns), channels(p.tiling.interleaved) {
    origin = unit_begin<Source>(columns[0].pixel * channels);
    const int32_t end = (columns[tile.columns - 1].pixel + 2) * channels;
    column_units = channels % kCount == 0 ? 2 * channels / kCount : (2 * channels + kCount - 2) / kCount + 1;
    const int32_t all = greater((end - origin + kCount - 1) / kCount, column_units);
    sparse = all > column_units * tile.columns;
    units = sparse ? column_units * tile.columns : all;
    pitch = units * kCount;
  }

  // `plane` is the source's first pixel.
  __device__ __forceinline__ typename Lines::Unit unit_at(const Source* plane, int32_t e) const {
    if (!sparse) return source.unit(plane, origin + e * kCount);
    const int32_t column = quotient(e, column_units),
                  begin = unit_begin<Source>(columns[column].pixel * channels);
    return source.unit(plane, begin + (e - column * column_units) * kCount);
  }

  // Where a line has the lower pixel of a column.
  __device__ __forceinline__ int32_t lower_of(int32_t column) const {
    const int32_t element = columns[column].pixel * channels;
    return sparse ? column * column_units * kCount + element - unit_begin<Source>(element)
                  : clamp_to(element - origin, 0, pitch - 2 * channels);
  }
};

// What a thread does of a tile: one unit of each line that it makes, one column of the result.
template <bool kWords, typename P, typename Column>
struct PairWork {
  PairLines<kWords, P, Column> line_of;
  ResultShare<P> mine;
  Pass pass;
  PassShare makes;
  typename PairLines<kWords, P, Column>::Lines::Unit first;  // in the pass's first plane
  int32_t at, slot_step;  // of its column's lower pixel in the lines of its slots
};

// Fills `slots`, of which there are as many in a pass as kStaged numbers hold lines.
template <bool kWords, typename P, typename Column>
__device__ __forceinline__ PairWork<kWords, P, Column> pair_work(const P& p, const Place& place,
                                                                 const Tile& tile, const Column* columns,
                                                                 Slot* slots) {
  const PairLines<kWords, P, Column> line_of(p, tile, columns);
  const int32_t pitch = line_of.pitch, room = quotient(kStaged<typename P::T>, pitch);
  const ResultShare<P> mine(p, place, tile, lesser(p.tiling.slot_lanes, room));
  const Pass pass(tile, lesser(P::kPassSlots * mine.share.step, room));
  make_slots(p, pass, slots);
  const PassShare makes = PassShare::of_units(line_of.units, pass);
  return {line_of,
          mine,
          pass,
          makes,
          line_of.unit_at(source_plane(p, place, tile.plane), makes.lane),
          mine.share.slot * pitch + line_of.lower_of(mine.column) + mine.channel,
          mine.share.step * pitch};
}

}  // namespace racnn
