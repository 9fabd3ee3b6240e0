// SPDX-License-Identifier: BSD-3-Clause
//
// out[i, j] = sum over y, x of b_i(y) a_j(x) I[y, x]. For each output row first along y, which leaves one
// line of pixels, then along x: a band (band.h) or, where runs are long, on cells of many rows (cells.h).
#pragma once

#include <limits>

#include "cells.h"

namespace racnn::cpu::RACNN_ISA {

// Where a unit's rows are written: whole registers may overwrite what follows, up to `limit`, because the
// unit itself writes it later.
template <typename Out>
struct OutputRows {
  Out* crop;
  Strides strides;
  int64_t size;  // numbers a row

  Out* row(int64_t plane, int32_t i) const { return crop + plane * strides.c + i * strides.y; }

  const Out* limit(const Unit& unit, int64_t plane, int32_t i) const {
    if (strides.y != size) return row(plane, i) + size;
    const int64_t rows = unit.row_end - unit.row_begin;
    const bool planes = strides.c == rows * size;
    return row(planes ? unit.plane_end - 1 : plane, unit.row_end - 1) + size;
  }
};

// A row of outputs run by run: pixels of weight 0 are not touched. `to` takes whole rows.
template <typename T>
void contract_runs(const Columns<T>& columns, int64_t step, const T* line, int s, T* to) {
  for (int32_t j = 0; j < columns.axis.out; ++j) {
    const T* from = line + (columns.first[j] + columns.before[j]) * step;
    blend<1>(from, step, columns.axis.runs[j].count, {columns.axis.set(j, s)}, {to + j * step}, step);
  }
}

template <typename Image, typename Out, typename Taps, typename T>
void forward_by_band(const ForwardProblem<Image, Out, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                     const Units& units, int64_t begin, int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item();
  const Columns<T> columns = make_columns(arena, runs.columns, p.image_strides, layout.step);
  const bool wide = layout.step >= kWidePixel;
  Band<T> band{};
  const T* weights = nullptr;
  if (!wide) {
    band = make_band<T>(arena, columns.first, p.shape.out_width, layout.step, columns.taps);
    weights = make_lanes<T>(arena, band, columns.taps,
                            [&](int64_t t, int64_t j) { return columns.weight(0, j, t); });
  }
  const Rows<Image> rows = rows_of(p.images, p.image_strides, p.shape, false, layout.step);
  LineMaker<Image, T, 1> lines(arena, rows, columns.line, runs.rows.longest, p.affine);
  const OutputRows<Out> out{p.out + crop_offset(p.out_strides, n, p.shape.windows), p.out_strides,
                            p.shape.out_width * layout.step};
  T* const exact = arena.take<T>(out.size + kLanes);
  T* const offset = arena.take<T>(out.size + kLanes);
  const bool shifted = p.affine.offset != nullptr;
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      lines.start_plane(plane);
      for (int64_t e = 0; e < out.size + kLanes; ++e) {
        if (shifted) offset[e] = T(p.affine.offset[plane + e % layout.step]);
      }
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
        Out* const to = out.row(plane, i);
        const Run& run = runs.rows.runs[i];
        if (run.count == 0) {
          shifted ? store_line(to, offset, out.size) : fill_row(T(0), out.size, to);
          continue;
        }
        lines.make(image + plane * p.image_strides.c + run.first * p.image_strides.y, run.count,
                   {runs.rows.weights[i]}, {runs.rows.sums[0][i]},
                   rows_ahead(units, runs.rows, image, p.image_strides, plane, i));
        if (!wide && !(columns.uneven && !lines.all_finite())) {
          const int64_t room = out.limit(unit, plane, i) - to;
          with_kind(band, [&](auto kind) {
            contract_row<decltype(kind)>(band, lines.lines()[0], weights, shifted ? offset : nullptr, to,
                                         room);
          });
          continue;
        }
        contract_runs(columns, layout.step, lines.lines()[0], 0, exact);
        for (int64_t e = 0; e < out.size; ++e) {
          if (shifted) exact[e] += offset[e];
        }
        store_line(to, exact, out.size);
      }
    }
  }
}

// A tile's cells as rows of the crop.
template <typename Out, typename T>
void store_cells(const T* cells, const UnitRows& rows, int64_t l, int64_t lanes, int64_t numbers,
                 const OutputRows<Out>& out, int64_t begin) {
  const auto row_of = [&](int64_t row) { return out.row(rows.plane(row), rows.row(row)) + begin; };
  if (lanes == 1) return store_line(row_of(l), cells, numbers);
  const int64_t count = lesser(rows.count() - l, lanes);
  alignas(64) T lines[kLanes * kLanes];
  for (int64_t e = 0; e < numbers; e += kLanes) {
    transpose(cells + e * kLanes, kLanes, lines, kLanes);
    for (int64_t lane = 0; lane < count; ++lane) {
      store_line(row_of(l + lane) + e, lines + lane * kLanes, lesser<int64_t>(numbers - e, kLanes));
    }
  }
}

template <typename Image, typename Out, typename Taps, typename T>
void forward_by_cells(const ForwardProblem<Image, Out, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                      const Units& units, int64_t begin, int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item();
  CellMaker<Image, T, 1> maker(arena, runs.rows, runs.columns, p.image_strides, layout.step);
  const int64_t cell = maker.cell(), lanes = maker.lanes();
  CellAffine<T, 1> affine(arena, p.affine, cell);
  T* const results = arena.take<T>((p.shape.out_width * layout.step + kLanes) * lanes);
  const AxisRuns<T> columns = runs.columns;  // a copy that no store can change: it stays in registers
  const bool normalised = affine.used();
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  const OutputRows<Out> out{p.out + crop_offset(p.out_strides, n, p.shape.windows), p.out_strides,
                            p.shape.out_width * layout.step};
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    const UnitRows rows{unit};
    for (int64_t l = 0; l < rows.count(); l += lanes) {
      affine.set(rows, l, lanes, runs.rows);
      for (const OutputTile& tile : maker.tiles()) {
        maker.make(image, rows, l, tile);
        const T* const cells = maker.cells(0);
        for (int32_t j = tile.begin; j < tile.end; ++j) {
          T* const result[1] = {results + (j - tile.begin) * cell};
          contract_cells<1>(columns, j, {0}, cells, tile.first, cell, result);
          if (normalised) affine.apply(columns.sums[0][j], result[0]);
        }
        store_cells(results, rows, l, lanes, (tile.end - tile.begin) * layout.step, out,
                    tile.begin * layout.step);
      }
    }
  }
}

// NaN in all units.
template <typename Image, typename Out, typename Taps>
void fill_with_nan(const ForwardProblem<Image, Out, Taps>& p, const Units& units, int64_t begin,
                   int64_t end) {
  using T = Accumulate<Image>;
  const int64_t step = plane_layout(p.shape.channels, p.image_strides).step, n = begin / units.per_item();
  const OutputRows<Out> out{p.out + crop_offset(p.out_strides, n, p.shape.windows), p.out_strides,
                            p.shape.out_width * step};
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
        fill_row(std::numeric_limits<T>::quiet_NaN(), out.size, out.row(plane, i));
      }
    }
  }
}

template <typename Image, typename Out, typename Taps>
void compute(const ForwardProblem<Image, Out, Taps>& p, const Units& units, int64_t begin, int64_t end) {
  Arena arena;
  const auto runs = crop_runs(arena, p.taps, p.shape, begin / units.per_item());
  if (!runs.finite) return fill_with_nan(p, units, begin, end);
  if (prefers_cells(runs.columns)) return forward_by_cells(p, runs, arena, units, begin, end);
  forward_by_band(p, runs, arena, units, begin, end);
}

}  // namespace racnn::cpu::RACNN_ISA
