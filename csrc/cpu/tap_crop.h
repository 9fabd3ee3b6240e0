// SPDX-License-Identifier: BSD-3-Clause
//
// The contraction with given tap tables (TapTables in crop.h) and its derivatives: the crop kernels' passes,
// fed from tables instead of windows. What forward mode, higher derivatives and vmap are made of.
#pragma once

#include "image_grad.h"

namespace racnn::cpu::RACNN_ISA {

// Term `term` of crop n along one axis of `size` pixels; entries outside become kOutside with weight zero.
template <typename T>
AxisTaps<T> table_taps(Arena& arena, const TapTable<T>& table, int64_t n, int64_t term, int64_t terms,
                       int32_t size, int32_t out) {
  Tap<T>* taps = arena.take<Tap<T>>(out);
  const T* weights = table.weights + (n * terms + term) * out * 2;
  for (int32_t j = 0; j < out; ++j) {
    const int64_t lower = table.pixels[n * out + j], upper = lower + 1;
    Tap<T> tap{kOutside, kOutside, T(0), T(0)};
    if (lower >= 0 && lower < size) tap.lower = int32_t(lower), tap.w_lower = weights[2 * j];
    if (upper >= 0 && upper < size) tap.upper = int32_t(upper), tap.w_upper = weights[2 * j + 1];
    taps[j] = tap;
  }
  return {taps, size, out};
}

template <typename T>
AxisTaps<T> row_taps(Arena& arena, const TapTables<T>& tables, const CropShape& s, int64_t n, int64_t term) {
  return table_taps(arena, tables.rows, n, term, tables.terms, s.height, s.out_height);
}

template <typename T>
AxisTaps<T> column_taps(Arena& arena, const TapTables<T>& tables, const CropShape& s, int64_t n,
                        int64_t term) {
  return table_taps(arena, tables.columns, n, term, tables.terms, s.width, s.out_width);
}

// out = or += the sum of kTerms terms from `first` on.
template <int kTerms, typename T>
void add_terms(const TapCropProblem<T>& p, const Unit& unit, int64_t first, bool start) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = unit.item;
  Arena arena;
  const AxisTaps<T> columns = column_taps(arena, p.taps, p.shape, n, first);
  LineMap<T, kTerms> map = make_line_map<T, kTerms>(arena, columns.taps, columns.out, layout.step);
  const Tap<T>* rows[kTerms];
  for (int t = 0; t < kTerms; ++t) {
    rows[t] = row_taps(arena, p.taps, p.shape, n, first + t).taps;
    const AxisTaps<T> term = column_taps(arena, p.taps, p.shape, n, first + t);
    for (int32_t j = 0; j < term.out; ++j) {
      map.sets[t].lower[j] = term.taps[j].w_lower, map.sets[t].upper[j] = term.taps[j].w_upper;
    }
  }
  finish_line_map(arena, map);
  RollingLines<T, T, kTerms> lines(arena, map, p.image_strides, {nullptr, nullptr});
  for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
    lines.start_plane(p.images + n / p.shape.windows * p.image_strides.b + plane * p.image_strides.c, plane);
    T* out = p.out + crop_offset(p.out_strides, n, p.shape.windows) + plane * p.out_strides.c;
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
      const auto source = lines.fetch(rows[0][i].lower, rows[0][i].upper);
      T* out_row = out + i * p.out_strides.y;
      for (int64_t e = 0; e < map.size(); e += kLanes) {
        Vec<T> total{};
        for (int t = 0; t < kTerms; ++t) {
          total += splat<T>(rows[t][i].w_lower) * load(source.lower[t] + e) +
                   splat<T>(rows[t][i].w_upper) * load(source.upper[t] + e);
        }
        const int64_t count = map.size() - e < kLanes ? map.size() - e : kLanes;
        if (!start) {
          Vec<T> before{};
          std::memcpy(&before, out_row + e, size_t(count) * sizeof(T));
          total += before;
        }
        store_lanes<T>(out_row + e, total, count);
      }
    }
  }
}

template <typename T>
void tap_crop(const TapCropProblem<T>& p, const Units& units, int64_t begin, int64_t end) {
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    int64_t term = 0;
    for (; term + 2 <= p.taps.terms; term += 2) add_terms<2>(p, unit, term, term == 0);
    if (term < p.taps.terms) add_terms<1>(p, unit, term, term == 0);
  }
}

// Each term of each crop is one more transposed crop of the image.
template <typename T>
void tap_image_grad(const TapImageGradProblem<T>& p, const Units& units, int64_t begin, int64_t end) {
  const CropShape& s = p.shape;
  const int64_t step = plane_layout(s.channels, p.image_strides).step;
  image_grad_of<T, T>(
      p, units, begin, end, s.windows * p.taps.terms, [&](Arena& arena, int64_t b, TransposedCrop<T>* crops) {
        int64_t count = 0;
        for (int64_t n = b * s.windows; n < (b + 1) * s.windows; ++n) {
          for (int64_t term = 0; term < p.taps.terms; ++term) {
            crops[count++] = {n, make_transposed(arena, column_taps(arena, p.taps, s, n, term),
                                                 row_taps(arena, p.taps, s, n, term), step)};
          }
        }
        return count;
      });
}

// One unit of one term of one crop. The lines: the term's own, for the rows' sums, and the lower and the
// upper pixels themselves, for the columns'.
template <typename T>
void tap_grad_unit(const TapGradProblem<T>& p, const Unit& unit, T* sums) {
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t n = unit.item / p.taps.terms, term = unit.item % p.taps.terms;
  Arena arena;
  const AxisTaps<T> columns = column_taps(arena, p.taps, p.shape, n, term);
  const Tap<T>* rows = row_taps(arena, p.taps, p.shape, n, term).taps;
  LineMap<T, 3> map = make_line_map<T, 3>(arena, columns.taps, columns.out, layout.step);
  for (int32_t j = 0; j < columns.out; ++j) {
    map.sets[1].lower[j] = T(map.lower[j] != kOutside), map.sets[1].upper[j] = T(0);
    map.sets[2].upper[j] = T(map.upper[j] != kOutside), map.sets[2].lower[j] = T(0);
  }
  finish_line_map(arena, map);
  RollingLines<T, T, 3> lines(arena, map, p.image_strides, {nullptr, nullptr});
  T* buffer = arena.take<T>(map.size() + kLanes);
  T* column_sums[2];
  for (T*& line : column_sums) {
    line = arena.take<T>(map.size() + kLanes);
    for (int64_t e = 0; e < map.size() + kLanes; ++e) line[e] = T(0);
  }
  for (int64_t e = 0; e < tap_grad_sums(p.shape); ++e) sums[e] = T(0);
  for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
    lines.start_plane(p.images + n / p.shape.windows * p.image_strides.b + plane * p.image_strides.c, plane);
    const T* grad =
        p.grad_output + crop_offset(p.grad_strides, n, p.shape.windows) + plane * p.grad_strides.c;
    for (int32_t i = unit.row_begin; i < unit.row_end; ++i) {
      const T* g =
          padded_grad_line(grad + i * p.grad_strides.y, p.grad_strides, layout, p.shape.out_width, buffer);
      const auto source = lines.fetch(rows[i].lower, rows[i].upper);
      const Vec<T> w_lower = splat<T>(rows[i].w_lower), w_upper = splat<T>(rows[i].w_upper);
      Vec<T> lower{}, upper{};
      for (int64_t e = 0; e < map.size(); e += kLanes) {
        const Vec<T> grad_out = load(g + e);
        lower += grad_out * load(source.lower[0] + e);
        upper += grad_out * load(source.upper[0] + e);
        for (int t = 0; t < 2; ++t) {
          const Vec<T> pixels =
              w_lower * load(source.lower[1 + t] + e) + w_upper * load(source.upper[1 + t] + e);
          store(column_sums[t] + e, load(column_sums[t] + e) + grad_out * pixels);
        }
      }
      sums[2 * i] += sum<T>(lower), sums[2 * i + 1] += sum<T>(upper);
    }
  }
  T* columns_out = sums + 2 * int64_t(p.shape.out_height);
  for (int64_t j = 0; j < map.pixels; ++j) {
    for (int64_t c = 0; c < map.step; ++c) {
      for (int t = 0; t < 2; ++t) columns_out[2 * j + t] += column_sums[t][j * map.step + c];
    }
  }
}

template <typename T>
void tap_grad(const TapGradProblem<T>& p, const Units& units, int64_t begin, int64_t end) {
  for (; begin < end; ++begin) {
    tap_grad_unit(p, units.unit(begin), p.workspace + begin * tap_grad_sums(p.shape));
  }
}

}  // namespace racnn::cpu::RACNN_ISA
