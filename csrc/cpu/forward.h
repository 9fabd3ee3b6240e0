// SPDX-License-Identifier: BSD-3-Clause
//
// out[i, j] = sum over y, x of b_i(y) a_j(x) I[y, x]. For each output row first along y, which leaves one
// line of pixels, then along x: a band (band.h) or, where runs are long, on cells of many rows (cells.h).
// Small crops of many channels go by cells of those (channel_forward.h).
#pragma once

#include <limits>

#include "cells.h"
#include "channel_forward.h"

namespace racnn::cpu::RACNN_ISA {

// line[i] = numbers[i * step] for i < n, a channel of interleaved pixels; kStep 0: any other. In a loop of a
// constant step the compiler finds permutations.
template <int kStep, typename T>
RACNN_NOINLINE void pick_channel(const T* __restrict numbers, int64_t step, int64_t n, T* __restrict line) {
  for (int64_t i = 0; i < n; ++i) line[i] = numbers[i * (kStep > 0 ? kStep : step)];
}

// Where the rows of a crop go. Their numbers are made in the order of the image, `step` a pixel.
template <typename Out>
struct OutputRows {
  Out* crop;
  Strides strides;
  int64_t size;  // numbers a row
  int64_t step;

  Out* row(int64_t plane, int32_t i) const { return crop + plane * strides.c + i * strides.y; }

  // Whether the crop has that order, too.
  bool in_order() const { return is_dense(strides, step); }

  // How far whole registers may be written from a row of `plane` on: the unit itself writes what follows.
  // Null: to the end of each row.
  const Out* limit(const Unit& unit, int64_t plane) const {
    if (strides.y != size) return nullptr;
    const bool planes = strides.c == (unit.row_end - unit.row_begin) * size;
    return row(planes ? unit.plane_end - 1 : plane, unit.row_end - 1) + size;
  }

  // Whole pixels of a row, n numbers from number `begin` on.
  template <typename T>
  RACNN_INLINE void store(Out* to, const T* numbers, int64_t begin, int64_t n) const {
    if (in_order()) return store_line(to + begin, numbers, n);
    store_channels(to + begin / step * strides.x, numbers, n / step);
  }

  // n numbers of a channel, where the crop's order is another.
  template <typename T>
  RACNN_INLINE void put(Out* to, const T* line, int64_t n) const {
    if (strides.x == 1) return store_line(to, line, n);
    for (int64_t i = 0; i < n; ++i) narrow(line[i], to + i * strides.x);
  }

 private:
  // One after the other: pieces of three planes by turns took longer.
  template <typename T>
  RACNN_NOINLINE void store_channels(Out* to, const T* numbers, int64_t pixels) const {
    constexpr int64_t kPiece = 256;
    const auto pick = step == 3 ? pick_channel<3, T> : step == 4 ? pick_channel<4, T> : pick_channel<0, T>;
    T piece[kPiece];
    for (int64_t c = 0; c < step; ++c, to += strides.c) {
      if constexpr (std::is_same_v<Out, T>) {
        if (strides.x == 1) {
          pick(numbers + c, step, pixels, to);
          continue;
        }
      }
      for (int64_t i = 0; i < pixels; i += kPiece) {
        const int64_t n = lesser(pixels - i, kPiece);
        pick(numbers + c + i * step, step, n, piece);
        put(to + i * strides.x, piece, n);
      }
    }
  }
};

template <typename Image, typename Out, typename Taps>
OutputRows<Out> output_rows(const ForwardProblem<Image, Out, Taps>& p, int64_t n, int64_t step) {
  return {p.out + crop_offset(p.out_strides, n, p.shape.windows), p.out_strides, p.shape.out_width * step,
          step};
}

// A row of outputs run by run: pixels of weight 0 are not touched. `to` takes whole rows.
template <typename T>
void contract_runs(const Columns<T>& columns, int64_t step, const T* line, int s, T* to) {
  for (int32_t j = 0; j < columns.axis.out; ++j) {
    const T* from = line + (columns.first[j] + columns.before[j]) * step;
    blend<1>(from, step, columns.axis.runs[j].count, {columns.axis.set(j, s)}, {to + j * step}, step);
  }
}

// One crop by a band, or by runs where no band will do.
template <typename Image, typename Out, typename T>
class BandForward {
 public:
  template <typename Taps>
  BandForward(Arena& arena, const ForwardProblem<Image, Out, Taps>& p, const CropRuns<T>& runs, int64_t step,
              const OutputRows<Out>& out)
      : step_(step),
        columns_(make_columns(arena, runs.columns, p.image_strides, step)),
        plans_(make_row_plans(arena, runs.rows, p.image_strides.y)),
        lines_(arena, rows_of(p.images, p.image_strides, p.shape, false, step), columns_.line,
               runs.rows.longest, p.affine),
        out_(out),
        row_(arena.take<T>(out.size + kLanes)),
        offsets_(p.affine.offset) {
    if (step < kWidePixel) {
      band_ = make_band<T>(arena, columns_.first, p.shape.out_width, step, columns_.taps,
                           blends() ? BlendedRows<Image, T>::kLoad : 0);
      weights_ = make_lanes<T>(arena, band_, columns_.taps,
                               [&](int64_t t, int64_t j) { return columns_.weight(0, j, t); });
    }
    if (offsets_ != nullptr) offset_ = arena.take<T>(out.size + kLanes);
  }

  // The rows of `unit` in one plane, whose pixel 0 is `plane`; `next`: whether another plane follows.
  void rows(const Unit& unit, const Image* plane, int64_t number, bool next) {
    lines_.start_plane(plane, number, next);
    for (int64_t e = 0; offset_ != nullptr && e < out_.size + kLanes; ++e) {
      offset_[e] = T(offsets_[number + e % step_]);
    }
    if (step_ >= kWidePixel) return rows_by_runs(unit, number);
    with_kind(band_, [&](auto kind) { rows_by_band<decltype(kind)>(unit, number); });
  }

 private:
  using Lines = LineMaker<Image, T, 1>;
  // Whether numbers that two blocks read may be converted for both: in short registers a line is faster.
  static constexpr bool kConvertsTwice = std::is_same_v<Image, T> || kRegisterBytes == 64;

  bool blends() const { return kConvertsTwice && columns_.blends && out_.in_order(); }

  template <typename Kind>
  RACNN_NOINLINE void rows_by_band(const Unit& unit, int64_t number) {
    const Band<T> band = band_;  // copies that no store can change: they stay in registers
    const T* const weights = weights_;
    const T* const offset = offset_;
    const bool in_order = out_.in_order(), blends = this->blends();
    Out* to = out_.row(number, unit.row_begin);
    const Out* const limit = out_.limit(unit, number);
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i, to += out_.strides.y) {
      if (plans_[i].count == 0) {
        fill(to);
        continue;
      }
      if constexpr (kMayBlend<Kind, T> && kConvertsTwice) {
        if (blends && lines_.in_place(plans_[i])) {
          lines_.fetch_ahead(plans_[i]);
          contract_row<Kind>(band, lines_.rows(plans_[i], 0), weights, offset, to,
                             limit == nullptr ? out_.size : limit - to);
          continue;
        }
      }
      lines_.make(plans_[i]);
      const Line<T> line{lines_.lines()[0]};
      if (columns_.uneven && !lines_.all_finite()) {
        row_by_runs(to);
      } else if (in_order) {
        contract_row<Kind>(band, line, weights, offset, to, limit == nullptr ? out_.size : limit - to);
      } else {
        contract_row<Kind>(band, line, weights, offset, row_, out_.size + kLanes);
        out_.store(to, row_, 0, out_.size);
      }
    }
  }

  void rows_by_runs(const Unit& unit, int64_t number) {
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
      Out* const to = out_.row(number, i);
      if (plans_[i].count == 0) {
        fill(to);
        continue;
      }
      lines_.make(plans_[i]);
      row_by_runs(to);
    }
  }

  // Pixels of weight 0 are not touched.
  void row_by_runs(Out* to) {
    contract_runs(columns_, step_, lines_.lines()[0], 0, row_);
    for (int64_t e = 0; offset_ != nullptr && e < out_.size; ++e) row_[e] += offset_[e];
    out_.store(to, row_, 0, out_.size);
  }

  // What reads no pixel.
  void fill(Out* to) {
    for (int64_t e = 0; e < out_.size; ++e) row_[e] = offset_ != nullptr ? offset_[e] : T(0);
    out_.store(to, row_, 0, out_.size);
  }

  int64_t step_;
  Columns<T> columns_;
  const RowPlan<T>* plans_;
  Lines lines_;
  OutputRows<Out> out_;
  T* row_;
  Band<T> band_{};
  const T* weights_ = nullptr;
  const double* offsets_;  // of the channels
  T* offset_ = nullptr;    // the same for each number of a row
};

template <typename Image, typename Out, typename Taps, typename T>
void forward_by_band(const ForwardProblem<Image, Out, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                     const Units& units, int64_t begin, int64_t end) {
  const int64_t step = plane_layout(p.shape.channels, p.image_strides).step, n = begin / units.per_item();
  BandForward<Image, Out, T> crop(arena, p, runs, step, output_rows(p, n, step));
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      crop.rows(unit, image + plane * p.image_strides.c, plane, plane + 1 < units.planes);
    }
  }
}

// A tile's cells as rows of the crop, from number `begin` on.
template <typename Out, typename T>
void store_cells(const T* cells, const UnitRows& rows, int64_t l, int64_t lanes, int64_t numbers,
                 const OutputRows<Out>& out, int64_t begin) {
  const auto row_of = [&](int64_t row) { return out.row(rows.plane(row), rows.row(row)); };
  if (lanes == 1) return out.store(row_of(l), cells, begin, numbers);
  const int64_t count = lesser(rows.count() - l, lanes);
  const bool in_order = out.in_order();
  const int64_t apart = in_order ? 1 : out.step;
  alignas(64) T lines[kLanes * kLanes];
  for (int64_t e = 0; e < numbers; e += apart * kLanes) {
    const int64_t n = lesser<int64_t>((numbers - e) / apart, kLanes);
    for (int64_t c = 0; c < apart; ++c) {
      transpose(cells + (e + c) * kLanes, apart * kLanes, lines, kLanes);
      const int64_t at = in_order ? begin + e : (begin + e) / apart * out.strides.x + c * out.strides.c;
      for (int64_t lane = 0; lane < count; ++lane) {
        Out* const to = row_of(l + lane) + at;
        const T* const line = lines + lane * kLanes;
        in_order ? store_line(to, line, n) : out.put(to, line, n);
      }
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
  T* const results = arena.take<T>((p.shape.out_width + kLanes) * cell);
  const AxisRuns<T> columns = runs.columns;  // a copy that no store can change: it stays in registers
  const bool normalised = affine.used();
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  const OutputRows<Out> out = output_rows(p, n, layout.step);
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
void fill_with_nan(const ForwardProblem<Image, Out, Taps>& p, Arena& arena, const Units& units, int64_t begin,
                   int64_t end) {
  using T = Accumulate<Image>;
  const int64_t step = plane_layout(p.shape.channels, p.image_strides).step, n = begin / units.per_item();
  const OutputRows<Out> out = output_rows(p, n, step);
  T* const row = arena.take<T>(out.size);
  fill_row(std::numeric_limits<T>::quiet_NaN(), out.size, row);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      for (int32_t i = unit.row_begin; i < unit.row_end; ++i) out.store(out.row(plane, i), row, 0, out.size);
    }
  }
}

template <typename Image, typename Out, typename Taps>
void compute(const ForwardProblem<Image, Out, Taps>& p, Arena& arena, const Units& units, int64_t begin,
             int64_t end) {
  if (units.by_channels) return forward_of_images(p, arena, units, begin, end);
  const auto runs = crop_runs(arena, p.taps, p.shape, begin / units.per_item());
  if (!runs.finite) return fill_with_nan(p, arena, units, begin, end);
  if (prefers_channels(runs, p.shape, p.image_strides, units)) {
    return forward_by_channels(p, runs, arena, units, begin, end);
  }
  if (prefers_cells(runs.columns)) return forward_by_cells(p, runs, arena, units, begin, end);
  forward_by_band(p, runs, arena, units, begin, end);
}

}  // namespace racnn::cpu::RACNN_ISA
