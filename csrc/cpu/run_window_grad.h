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
  const int64_t count = lesser(rows.count() - l, lanes);
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

template <typename Image, typename Grad, typename Taps, typename T>
void window_grad_by_cells(const WindowGradProblem<Image, Grad, Taps>& p, const CropRuns<T>& runs,
                          Arena& arena, const Units& units, int64_t begin, int64_t end) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = begin / units.per_item();
  const AxisRuns<T>&row_runs = runs.rows, &columns = runs.columns;
  CellMaker<Image, T, 3> maker(arena, row_runs, columns, p.image_strides, layout.step);
  const int64_t cell = maker.cell(), lanes = maker.lanes();
  const int64_t padded = p.shape.out_width * layout.step + kLanes;
  T* grad_lines = arena.take<T>(padded * lanes);
  T* grad_cells = arena.take<T>(padded * lanes);
  T *slopes[kAxisSums], *sums[kAxisSums];  // by x, half_x, y, half_y; one for each number of a cell
  for (T*& slope : slopes) slope = arena.take<T>(cell);
  for (T*& sum : sums) sum = arena.take<T>(cell);
  CellAffine<T, 3> affine(arena, p.affine, cell);
  const Image* image = p.images + n / p.shape.windows * p.image_strides.b;
  const Grad* grad = p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    const UnitRows rows{unit};
    for (T* sum : sums) {
      for (int64_t e = 0; e < cell; ++e) sum[e] = T(0);
    }
    for (int64_t l = 0; l < rows.count(); l += lanes) {
      affine.set(rows, l, lanes, row_runs);
      make_grad_cells(grad, p.grad_strides, rows, l, lanes, layout, p.shape.out_width, grad_lines,
                      grad_cells);
      for (const OutputTile& tile : maker.tiles()) {
        maker.make(image, rows, l, tile);
        for (int32_t j = tile.begin; j < tile.end; ++j) {
          contract_cells<2>(columns, j, {1, 2}, maker.cells(0), tile.first, cell, {slopes[0], slopes[1]});
          contract_cells<1>(columns, j, {0}, maker.cells(1), tile.first, cell, {slopes[2]});
          contract_cells<1>(columns, j, {0}, maker.cells(2), tile.first, cell, {slopes[3]});
          const T* g = grad_cells + j * cell;
          for (int s = 0; s < kAxisSums; ++s) {
            const T* shift = affine.shift[s < 2 ? 0 : s - 1];
            const T weights = columns.sums[s < 2 ? s + 1 : 0][j];
            for (int64_t e = 0; e < cell; ++e) {
              sums[s][e] += g[e] * (affine.scale[e] * slopes[s][e] + shift[e] * weights);
            }
          }
        }
      }
    }
    T totals[kAxisSums] = {};
    for (int s = 0; s < kAxisSums; ++s) {
      for (int64_t e = 0; e < cell; ++e) totals[s] += sums[s][e];
    }
    p.workspace[begin] = {totals[0], totals[1], totals[2], totals[3]};
  }
}

}  // namespace racnn::cpu::RACNN_ISA
