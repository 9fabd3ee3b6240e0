// SPDX-License-Identifier: BSD-3-Clause
//
// out[i, j] = sum over y, x of b_i(y) a_j(x) I[y, x]: a horizontal pass per image row, kept in line buffers
// that roll along, then one vectorised interpolation between two lines per output row.
#pragma once

#include <limits>

#include "lines.h"
#include "units.h"

namespace racnn::cpu::RACNN_ISA {

template <typename Out, typename T>
RACNN_INLINE void interpolate_row(const T* lower, const T* upper, const Tap<T>& tap, int64_t size, Out* out) {
  const Vec<T> w_lower = splat<T>(tap.w_lower), w_upper = splat<T>(tap.w_upper);
  for (int64_t e = 0; e < size; e += kLanes) {
    store_lanes<T>(out + e, w_lower * load(lower + e) + w_upper * load(upper + e), size - e);
  }
}

template <typename Image, typename Out, typename Taps>
void compute(const ForwardProblem<Image, Out, Taps>& p, const Units& units, int64_t begin, int64_t end) {
  using T = Accumulate<Image>;
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  while (begin < end) {
    const int64_t n = begin / units.per_item();
    Arena arena;
    const CropTaps<T> taps = crop_taps(arena, p.taps, p.shape, n);
    LineMap<T, 1> map = make_line_map<T, 1>(arena, taps.columns, layout.step);
    finish_line_map(arena, map);
    RollingLines<Image, T, 1> lines(arena, map, p.image_strides, p.affine);
    for (; begin < end && begin / units.per_item() == n; ++begin) {
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
}

}  // namespace racnn::cpu::RACNN_ISA
