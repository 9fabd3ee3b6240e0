// SPDX-License-Identifier: BSD-3-Clause
//
// out[i, j] = sum over y, x of b_i(y) a_j(x) I[y, x]. With two entries a tap: a horizontal pass per image
// row, kept in line buffers that roll along, then one vectorised interpolation between two lines per output
// row. With runs: a vertical pass per output row, then a horizontal one on cells (cells.h).
#pragma once

#include <limits>

#include "cells.h"

namespace racnn::cpu::RACNN_ISA {

template <typename Out, typename T>
RACNN_INLINE void interpolate_row(const T* lower, const T* upper, const Tap<T>& tap, int64_t size, Out* out) {
  const Vec<T> w_lower = splat<T>(tap.w_lower), w_upper = splat<T>(tap.w_upper);
  for (int64_t e = 0; e < size; e += kLanes) {
    store_lanes<T>(out + e, w_lower * load(lower + e) + w_upper * load(upper + e), size - e);
  }
}

template <typename Out, typename T>
RACNN_INLINE void store_row(const T* line, int64_t size, Out* out) {
  for (int64_t e = 0; e < size; e += kLanes) store_lanes<T>(out + e, load(line + e), size - e);
}

template <typename Image, typename Out, typename Taps>
void compute(const ForwardProblem<Image, Out, Taps>& p, const Units& units, int64_t begin, int64_t end) {
  using T = Accumulate<Image>;
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item();
  Arena arena;
  const auto taps = crop_taps(arena, p.taps, p.shape, n);
  LineMap<T, 1> map = make_line_map<T, 1>(arena, taps.columns, layout.step);
  finish_line_map(arena, map);
  RollingLines<Image, T, 1> lines(arena, map, p.image_strides, p.affine);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      const Image* image = p.images + n / p.shape.windows * p.image_strides.b + plane * p.image_strides.c;
      lines.start_plane(image, plane);
      Out* out = p.out + crop_offset(p.out_strides, n, p.shape.windows) + plane * p.out_strides.c;
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
        Out* out_row = out + i * p.out_strides.y;
        const Tap<T>& tap = taps.rows[i];
        if (!taps.finite) {
          fill_row(std::numeric_limits<T>::quiet_NaN(), map.size(), out_row);
        } else if (tap.lower == kOutside && tap.upper == kOutside) {
          fill_row(T(0), map.size(), out_row);
        } else {
          const Ahead ahead = rows_ahead(unit, plane, i);
          lines.announce(image + ahead.planes * p.image_strides.c, taps.rows[ahead.row].upper);
          const auto rows = lines.fetch(tap.lower, tap.upper);
          interpolate_row(rows.lower[0], rows.upper[0], tap, map.size(), out_row);
        }
      }
    }
  }
}

// A tile's cells as rows of the crop.
template <typename Out, typename T>
void store_cells(const T* cells, const UnitRows& rows, int64_t l, int64_t lanes, int64_t numbers,
                 const Strides& strides, Out* out) {
  const auto row_of = [&](int64_t row) {
    return out + rows.plane(row) * strides.c + rows.row(row) * strides.y;
  };
  if (lanes == 1) return store_row(cells, numbers, row_of(l));
  const int64_t count = lesser(rows.count() - l, lanes);
  alignas(64) T lines[kLanes * kLanes];
  for (int64_t e = 0; e < numbers; e += kLanes) {
    transpose(cells + e * kLanes, kLanes, lines, kLanes);
    for (int64_t lane = 0; lane < count; ++lane) {
      store_lanes<T>(row_of(l + lane) + e, load(lines + lane * kLanes), numbers - e);
    }
  }
}

template <typename Image, typename Out, typename T>
void compute(const ForwardProblem<Image, Out, FilterSpec<T>>& p, const Units& units, int64_t begin,
             int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item();
  const CropAxes<FilterAxis<T>> axes = crop_axes(p.taps, p.shape, n);
  if (p.affine.offset == nullptr && has_two_entries(axes.x) && has_two_entries(axes.y)) {
    return compute(ForwardProblem<Image, Out>{p.images, p.out, p.shape, p.image_strides, p.out_strides,
                                              p.taps, p.affine},
                   units, begin, end);
  }
  Arena arena;
  const CropTaps taps{axis_taps(arena, axes.y), axis_taps(arena, axes.x), axes.finite};
  CellMaker<Image, T, 1> maker(arena, taps.rows, taps.columns, p.image_strides, layout.step);
  const int64_t cell = maker.cell(), lanes = maker.lanes();
  CellAffine<T, 1> affine(arena, p.affine, cell);
  T* const results = arena.take<T>((p.shape.out_width * layout.step + kLanes) * lanes);
  const AxisRuns<T> columns = taps.columns;  // a copy that no store can change: it stays in registers
  const bool normalised = affine.used();
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  Out* out = p.out + crop_offset(p.out_strides, n, p.shape.windows);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    const UnitRows rows{unit};
    for (int64_t l = 0; l < rows.count(); l += lanes) {
      affine.set(rows, l, lanes, taps.rows);
      for (const OutputTile& tile : maker.tiles()) {
        const int64_t numbers = (tile.end - tile.begin) * layout.step;
        if (taps.finite) {
          maker.make(image, rows, l, tile);
          const T* const cells = maker.cells(0);
          for (int32_t j = tile.begin; j < tile.end; ++j) {
            T* const result[1] = {results + (j - tile.begin) * cell};
            contract_cells<1>(columns, j, {0}, cells, tile.first, cell, result);
            if (normalised) affine.apply(columns.sums[0][j], result[0]);
          }
        } else {
          fill_row(std::numeric_limits<T>::quiet_NaN(), numbers * lanes, results);
        }
        store_cells(results, rows, l, lanes, numbers, p.out_strides, out + tile.begin * layout.step);
      }
    }
  }
}

}  // namespace racnn::cpu::RACNN_ISA
