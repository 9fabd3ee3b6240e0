// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d window with runs: the derivatives along y go into the rows' weights, those along x into the
// columns'. From each image row three kinds of cells are made (cells.h), by the rows' weights and by their
// two derivatives, all in one pass over the pixels.
#pragma once

#include "cells.h"

namespace racnn::cpu::RACNN_ISA {

// The cells of g for rows [l, l + lanes) of a unit.
template <typename Grad, typename T>
void make_grad_cells(const Grad* grad, const Strides& strides, const UnitRows& rows, int64_t l, int64_t lanes,
                     const PlaneLayout& layout, int64_t pixels, T* lines, T* cells) {
  const int64_t numbers = pixels * layout.step, padded = numbers + kLanes;
  const int64_t count = rows.count() - l < lanes ? rows.count() - l : lanes;
  for (int64_t lane = 0; lane < count; ++lane) {
    const Grad* row = grad + rows.plane(l + lane) * strides.c + rows.row(l + lane) * strides.y;
    T* to = lanes == 1 ? cells : lines + lane * padded;
    const T* line = line_of(row, strides.x, strides.c, pixels, layout.step, to);
    if (line != to) std::memcpy(to, line, size_t(numbers) * sizeof(T));
  }
  if (lanes == 1) return;
  for (int64_t i = count * padded; i < lanes * padded; ++i) lines[i] = T(0);
  for (int64_t e = 0; e < numbers; e += kLanes) transpose(lines + e, padded, cells + e * kLanes, kLanes);
}

// Of one unit: sums of g times derivatives, one for each number of a cell.
template <typename T>
struct CellSums {
  T *x, *half_x, *y, *half_y;

  CellSums(Arena& arena, int64_t cell) {
    for (T** sums : {&x, &half_x, &y, &half_y}) *sums = arena.take<T>(cell);
  }

  void clear(int64_t cell) {
    for (T* sums : {x, half_x, y, half_y}) {
      for (int64_t e = 0; e < cell; ++e) sums[e] = T(0);
    }
  }

  Window<T> total(int64_t cell) const {
    Window<T> total{};
    for (int64_t e = 0; e < cell; ++e) {
      total.x += x[e];
      total.half_x += half_x[e];
      total.y += y[e];
      total.half_y += half_y[e];
    }
    return total;
  }
};

// The affine map of the pixels in a cell; `shift` times the sums of the rows' weights and derivatives.
template <typename T>
struct CellGradAffine {
  T *scale, *shift[3];  // [cell]
  int64_t cell;
  bool used;

  CellGradAffine(Arena& arena, const ChannelAffine& affine, int64_t cell)
      : cell(cell), used(affine.scale != nullptr) {
    for (T** numbers : {&scale, &shift[0], &shift[1], &shift[2]}) *numbers = arena.take<T>(cell);
  }

  void set(const ChannelAffine& affine, const UnitRows& rows, int64_t l, int64_t lanes,
           const AxisRuns<T>& taps) {
    for (int64_t e = 0; e < cell; ++e) {
      const int64_t row = l + e % lanes < rows.count() ? l + e % lanes : rows.count() - 1;
      const int64_t c = rows.plane(row) + e / lanes;
      scale[e] = used ? T(affine.scale[c]) : T(1);
      for (int s = 0; s < 3; ++s) {
        shift[s][e] = used ? T(affine.shift[c]) * taps.sums[s][rows.row(row)] : T(0);
      }
    }
  }
};

template <typename Image, typename Grad, typename T>
void compute(const WindowGradProblem<Image, Grad, FilterSpec<T>>& p, const Units& units, int64_t begin,
             int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  while (begin < end) {
    const int64_t n = begin / units.per_item();
    Arena arena;
    const CropRuns<T> taps = crop_runs<true>(arena, p.taps, p.shape, n);
    CellMaker<Image, T, 3> maker(arena, taps.rows, taps.columns, p.image_strides, layout.step);
    const int64_t cell = maker.cell(), lanes = maker.lanes();
    const int64_t padded = p.shape.out_width * layout.step + kLanes;
    T* grad_lines = arena.take<T>(padded * lanes);
    T* grad_cells = arena.take<T>(padded * lanes);
    T* slopes[4];
    for (T*& slope : slopes) slope = arena.take<T>(cell);
    CellGradAffine<T> affine(arena, p.affine, cell);
    CellSums<T> sums(arena, cell);
    const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
    const Grad* grad = p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows);
    for (; begin < end && begin / units.per_item() == n; ++begin) {
      const Unit unit = units.unit(begin);
      const UnitRows rows{unit};
      sums.clear(cell);
      for (int64_t l = 0; taps.finite && l < rows.count(); l += lanes) {
        affine.set(p.affine, rows, l, lanes, taps.rows);
        make_grad_cells(grad, p.grad_strides, rows, l, lanes, layout, p.shape.out_width, grad_lines,
                        grad_cells);
        for (const OutputTile& tile : maker.tiles()) {
          maker.make(image, rows, l, tile);
          for (int32_t j = tile.begin; j < tile.end; ++j) {
            contract_cells<2>(taps.columns, j, {1, 2}, maker.cells(0), tile.first, cell,
                              {slopes[0], slopes[1]});
            contract_cells<1>(taps.columns, j, {0}, maker.cells(1), tile.first, cell, {slopes[2]});
            contract_cells<1>(taps.columns, j, {0}, maker.cells(2), tile.first, cell, {slopes[3]});
            const T* g = grad_cells + j * cell;
            const T sum = taps.columns.sums[0][j], d_centre = taps.columns.sums[1][j],
                    d_half = taps.columns.sums[2][j];
            for (int64_t e = 0; e < cell; ++e) {
              sums.x[e] += g[e] * (affine.scale[e] * slopes[0][e] + affine.shift[0][e] * d_centre);
              sums.half_x[e] += g[e] * (affine.scale[e] * slopes[1][e] + affine.shift[0][e] * d_half);
              sums.y[e] += g[e] * (affine.scale[e] * slopes[2][e] + affine.shift[1][e] * sum);
              sums.half_y[e] += g[e] * (affine.scale[e] * slopes[3][e] + affine.shift[2][e] * sum);
            }
          }
        }
      }
      p.workspace[begin] = sums.total(cell);
    }
  }
}

}  // namespace racnn::cpu::RACNN_ISA
