// SPDX-License-Identifier: BSD-3-Clause
//
// The contraction with runs. First along y, over whole lines; then along x, on several output rows at once:
// their lines are turned so that a pixel's numbers of all rows lie side by side, a *cell*, and an output is a
// weighted sum of cells, as a line was one of rows. Both passes are `blend`, at the full width of the
// machine's vectors whatever the reduction.
//
// A cell holds kLanes rows, which may lie in different planes, of a narrow pixel's numbers; or the many
// channels of a wide one, of one row.
#pragma once

#include "blend.h"
#include "lines.h"
#include "runs.h"

namespace racnn::cpu::RACNN_ISA {

static_assert(kCutOfRuns.rows == kLanes, "units are whole cells");

constexpr int64_t kTileNumbers = 16384;  // of the cells that are at work at a time: they stay in the cache

// Whether cells take fewer instructions than a band: of a row, to turn its pixels and outputs and to add up
// the entries; against blocks of a register a tap. Never of two-entry taps: their results are the same to the
// bit whichever kernels compute them.
template <typename T>
bool prefers_cells(const AxisRuns<T>& columns) {
  if (columns.longest <= 2) return false;
  int64_t entries = 0, blocks = 0;
  for (int32_t j = 0; j < columns.out; ++j) entries += columns.runs[j].count;
  const auto number = [&](int64_t j) { return int64_t(columns.runs[j].first); };
  each_block(columns.out, kRegisterLanes<T>, kRegisterLanes<T> - 1, number,
             [&](int64_t, int64_t, int64_t) { ++blocks; });
  const int64_t turned = columns.range().size() + columns.out;
  return blocks * 3 * (columns.longest + 1) * kRegisterLanes<T> > 10 * turned + 2 * entries;
}

// Outputs [begin, end) of a row and the pixels [first, first + pixels) that they read.
struct OutputTile {
  int32_t begin, end, first, pixels;
};

// The tiles of a row, each of at most so many pixels or one output.
struct OutputTiles {
  OutputTile* tiles;
  int32_t count, most_pixels;

  const OutputTile* begin() const { return tiles; }
  const OutputTile* end() const { return tiles + count; }
};

template <typename T>
OutputTiles output_tiles(Arena& arena, const AxisRuns<T>& columns, int64_t most_pixels) {
  OutputTiles row{arena.take<OutputTile>(columns.out), 0, 0};
  for (int32_t j = 0; j < columns.out;) {
    OutputTile tile{j, j, 0, 0};
    for (; tile.end < columns.out; ++tile.end) {
      const Run& run = columns.runs[tile.end];
      if (run.count == 0) continue;
      const bool none = tile.pixels == 0;
      const int32_t first = none ? run.first : lesser(run.first, tile.first);
      const int32_t run_end = run.first + run.count;
      const int32_t end = none ? run_end : greater(run_end, tile.first + tile.pixels);
      if (!none && end - first > most_pixels) break;
      tile.first = first;
      tile.pixels = end - first;
    }
    row.most_pixels = greater(row.most_pixels, tile.pixels);
    row.tiles[row.count++] = tile;
    j = tile.end;
  }
  return row;
}

// The output rows of a unit, numbered through its planes.
struct UnitRows {
  const Unit& unit;

  int64_t count() const { return (unit.plane_end - unit.plane_begin) * rows(); }
  int32_t rows() const { return unit.row_end - unit.row_begin; }
  int64_t plane(int64_t l) const { return unit.plane_begin + l / rows(); }
  int32_t row(int64_t l) const { return unit.row_begin + int32_t(l % rows()); }
};

// What one thread needs to make cells of a crop.
template <typename Image, typename T, int kSets>
class CellMaker {
 public:
  CellMaker(Arena& arena, const AxisRuns<T>& rows, const AxisRuns<T>& columns, const Strides& images,
            int64_t step)
      : rows_(rows), images_(images), step_(step), wide_(step >= kWidePixel) {
    tiles_ = output_tiles(arena, columns, kTileNumbers / kSets / cell());
    int32_t tall = 0;
    for (int32_t i = 0; i < rows.out; ++i) tall = greater(tall, rows.runs[i].count);
    for (T*& cells : cells_) cells = arena.take<T>(tiles_.most_pixels * cell() + kLanes * kLanes);
    for (T*& lines : lines_) lines = arena.take<T>(kLanes * kChunk);
    if (!direct()) widened_ = arena.take<T>(int64_t(tall) * kChunk);
  }

  int64_t lanes() const { return wide_ ? 1 : kLanes; }
  int64_t cell() const { return wide_ ? step_ : step_ * kLanes; }
  const OutputTiles& tiles() const { return tiles_; }
  const T* cells(int s) const { return cells_[s]; }

  // The cells of a tile's pixels for rows [l, l + lanes()) of a unit: set s by the rows' weights s. Whole
  // vectors are turned: what lies behind the tile's last pixel is not read.
  void make(const Image* image, const UnitRows& unit_rows, int64_t l, const OutputTile& tile) {
    const int64_t numbers = tile.pixels * step_;
    if (wide_) return blend_row(image, unit_rows, l, tile, 0, numbers, cells_);
    const int64_t count = lesser<int64_t>(unit_rows.count() - l, kLanes);
    for (int64_t e = 0; e < numbers; e += kChunk) {
      const int64_t n = lesser(numbers - e, kChunk);
      for (int64_t lane = 0; lane < count; ++lane) {
        T* to[kSets];
        for (int s = 0; s < kSets; ++s) to[s] = lines_[s] + lane * kChunk;
        blend_row(image, unit_rows, l + lane, tile, e, n, to);
      }
      for (T* lines : lines_) {  // rows that there are none of: not what earlier ones left, it may be NaN
        for (int64_t i = count * kChunk; i < kLanes * kChunk; ++i) lines[i] = T(0);
      }
      for (int s = 0; s < kSets; ++s) {
        for (int64_t x = 0; x < n; x += kLanes) {
          transpose(lines_[s] + x, kChunk, cells_[s] + (e + x) * kLanes, kLanes);
        }
      }
    }
  }

 private:
  static constexpr int64_t kChunk = 512;  // numbers of a line that are turned at a time

  bool direct() const { return is_dense(images_, step_); }

  // Numbers [e, e + n) of the tile's line of one output row.
  void blend_row(const Image* image, const UnitRows& unit_rows, int64_t l, const OutputTile& tile, int64_t e,
                 int64_t n, T* const (&to)[kSets]) const {
    const int32_t i = unit_rows.row(l);
    const Run& run = rows_.runs[i];
    const T* weights[kSets];
    for (int s = 0; s < kSets; ++s) weights[s] = rows_.set(i, s);
    const Image* from = image + unit_rows.plane(l) * images_.c + run.first * images_.y;
    if (direct()) {
      return blend<kSets>(from + tile.first * step_ + e, images_.y, run.count, weights, to, n);
    }
    for (int32_t k = 0; k < run.count; ++k) {
      widen_line(from + k * images_.y + (tile.first + e) * images_.x, images_.x, n, widened_ + k * kChunk);
    }
    blend<kSets>(static_cast<const T*>(widened_), kChunk, run.count, weights, to, n);
  }

  const AxisRuns<T>& rows_;
  Strides images_;
  int64_t step_;
  bool wide_;
  OutputTiles tiles_;
  T* cells_[kSets];
  T* lines_[kSets];
  T* widened_ = nullptr;
};

// The cell of output j: to[s] = sum over its run of weights set[s] * cells.
template <int kSets, typename T>
RACNN_INLINE void contract_cells(const AxisRuns<T>& columns, int32_t j, const int (&sets)[kSets],
                                 const T* cells, int32_t first, int64_t cell, T* const (&to)[kSets]) {
  const Run& run = columns.runs[j];
  const T* weights[kSets];
  for (int s = 0; s < kSets; ++s) weights[s] = columns.set(j, sets[s]);
  const T* from = cells + (run.count > 0 ? run.first - first : 0) * cell;
  if (cell % kLanes != 0) return blend<kSets>(from, cell, run.count, weights, to, cell);
  for (int64_t e = 0; e < cell; e += kLanes) {
    blend_registers<kLanes / kRegisterLanes<T>, 0, false>(from, cell, run.count, weights, to, e);
  }
}

// The affine map of the pixels in a cell of outputs: scale * sum + shift[s] * (sum of the columns' weights) +
// offset, where shift[s] holds the sums of the rows' weights s already.
template <typename T, int kSets>
struct CellAffine {
  T *scale, *shift[kSets], *offset;  // [cell]

  CellAffine(Arena& arena, const ChannelAffine& affine, int64_t cell) : affine_(affine), cell_(cell) {
    scale = filled(arena, T(1));
    offset = filled(arena, T(0));
    for (T*& numbers : shift) numbers = filled(arena, T(0));
  }

  bool used() const { return affine_.scale != nullptr; }

  // For rows [l, l + lanes) of a unit, those of which there are none as the last.
  void set(const UnitRows& rows, int64_t l, int64_t lanes, const AxisRuns<T>& taps) {
    if (!used()) return;
    for (int64_t e = 0; e < cell_; ++e) {
      const int64_t row = lesser(l + e % lanes, rows.count() - 1), c = rows.plane(row) + e / lanes;
      scale[e] = T(affine_.scale[c]);
      if (affine_.offset != nullptr) offset[e] = T(affine_.offset[c]);
      for (int s = 0; s < kSets; ++s) shift[s][e] = T(affine_.shift[c]) * taps.sums[s][rows.row(row)];
    }
  }

  RACNN_INLINE void apply(T column_sum, T* values) const {
    for (int64_t e = 0; e < cell_; ++e) {
      values[e] = scale[e] * values[e] + (shift[0][e] * column_sum + offset[e]);
    }
  }

 private:
  T* filled(Arena& arena, T value) const {
    T* numbers = arena.take<T>(cell_);
    for (int64_t e = 0; e < cell_; ++e) numbers[e] = value;
    return numbers;
  }

  ChannelAffine affine_;
  int64_t cell_;
};

}  // namespace racnn::cpu::RACNN_ISA
