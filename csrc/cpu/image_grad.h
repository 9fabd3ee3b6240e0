// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d I[y, x] = sum over i, j of b_i(y) a_j(x) g[i, j], as a gather: the outputs that read pixel x are
// one contiguous run (positions do not decrease in j), so for each image row the few output rows that read it
// are added up, then one band contracts the columns. Nobody else writes the row: no atomics, one fixed order.
#pragma once

#include "lines.h"

namespace racnn::cpu::RACNN_ISA {

// More outputs than this on one pixel (a strong zoom, or a border that collects many): no band.
constexpr int64_t kMaxBandTaps = 16;

// One axis read backwards: for pixels [begin, end), the run of outputs that read them and their weights.
template <typename T>
struct Inverse {
  int32_t begin, end;
  int32_t* first;   // [end - begin]: first output that reads the pixel, or the one before if none does
  int32_t* count;   // [end - begin], 0 for a pixel that is skipped
  int64_t* offset;  // [end - begin]: of the pixel's weights
  T* weights;       // count numbers a pixel
  int64_t most;     // largest count
};

template <typename T, typename Axis>
Inverse<T> make_inverse(Arena& arena, const Axis& axis) {
  Inverse<T> inverse{axis.size, 0, nullptr, nullptr, nullptr, nullptr, 0};
  axis.each([&](int32_t, int32_t pixel, T) {
    inverse.begin = pixel < inverse.begin ? pixel : inverse.begin;
    inverse.end = pixel + 1 > inverse.end ? pixel + 1 : inverse.end;
  });
  const int64_t pixels = inverse.end > inverse.begin ? inverse.end - inverse.begin : 0;
  inverse.first = arena.take<int32_t>(pixels);
  inverse.count = arena.take<int32_t>(pixels);
  inverse.offset = arena.take<int64_t>(pixels);
  for (int64_t x = 0; x < pixels; ++x) {
    inverse.first[x] = 0;
    inverse.count[x] = 0;
  }
  axis.each([&](int32_t j, int32_t pixel, T) {
    const int32_t x = pixel - inverse.begin;
    if (inverse.count[x] == 0) inverse.first[x] = j;
    inverse.count[x] = j - inverse.first[x] + 1;
  });
  int64_t total = 0;
  for (int64_t x = 0; x < pixels; ++x) {
    if (inverse.count[x] == 0) inverse.first[x] = inverse.first[x - 1];  // near: blocks of a band stay long
    inverse.offset[x] = total;
    total += inverse.count[x];
    inverse.most = inverse.count[x] > inverse.most ? inverse.count[x] : inverse.most;
  }
  inverse.weights = arena.take<T>(total);
  for (int64_t w = 0; w < total; ++w) inverse.weights[w] = T(0);
  axis.each([&](int32_t j, int32_t pixel, T weight) {
    const int32_t x = pixel - inverse.begin;
    inverse.weights[inverse.offset[x] + j - inverse.first[x]] += weight;
  });
  return inverse;
}

// The transposed crop of one window, row by row of the image.
template <typename T>
struct Transposed {
  Inverse<T> x, y;
  bool by_band;  // else pixel by pixel
  Band<T> band;
  const T* weights;

  bool reads_row(int32_t row) const {
    return x.end > x.begin && row >= y.begin && row < y.end && y.count[row - y.begin] > 0;
  }
};

template <typename T>
Transposed<T> make_transposed(Arena& arena, const CropRuns<T>& runs, int64_t step) {
  Transposed<T> t{
      make_inverse<T>(arena, runs.columns), make_inverse<T>(arena, runs.rows), false, {}, nullptr};
  const int64_t pixels = t.x.end > t.x.begin ? t.x.end - t.x.begin : 0;
  t.by_band = pixels > 0 && t.x.most <= kMaxBandTaps && step < kWidePixel;
  if (!t.by_band) return t;
  t.band = make_band<T>(arena, t.x.first, pixels, step, t.x.most);
  t.weights = make_lanes<T>(arena, t.band, t.x.most, [&](int64_t k, int64_t i) {
    return k < t.x.count[i] ? t.x.weights[t.x.offset[i] + k] : T(0);
  });
  return t;
}

// to[x] = sum over j of a_j(x) * line[j], for the pixels of the window; `to` takes whole registers. The
// band's zero weights are left out where they would matter: 0 * Inf is NaN.
template <typename T>
void contract_columns(const Transposed<T>& t, int64_t step, const T* line, bool finite, T* to) {
  if (t.by_band && finite) {
    return with_kind(t.band, [&](auto kind) {
      contract_row<decltype(kind)>(t.band, line, t.weights, static_cast<const T*>(nullptr), to, INT64_MAX);
    });
  }
  for (int64_t i = 0; i < t.x.end - t.x.begin; ++i) {
    const int64_t count = t.x.count[i];
    const T* const weights = t.x.weights + t.x.offset[i];
    blend<1>(line + t.x.first[i] * step, step, count, {weights}, {to + i * step}, step);
  }
}

// Adds a window to `row`, or starts the row with it. `columns` takes a row.
template <typename T>
void add_columns(const Transposed<T>& t, int64_t step, const T* line, bool finite, int64_t row_size,
                 bool start, T* row, T* columns) {
  const int64_t begin = t.x.begin * step, end = t.x.end * step;
  if (start) {
    contract_columns(t, step, line, finite, row + begin);
    fill_row(T(0), begin, row);
    fill_row(T(0), row_size - end, row + end);
  } else {
    contract_columns(t, step, line, finite, columns);
    for (int64_t e = begin; e < end; ++e) row[e] += columns[e - begin];
  }
}

// Beyond the size of a cache, a result is written past it: what is read next would be evicted, and each line
// would be fetched before it is overwritten.
template <typename Grad, typename Image, typename Taps>
RACNN_INLINE bool streams(const ImageGradProblem<Grad, Image, Taps>& p) {
  constexpr int64_t kLargeResult = int64_t(32) << 20;
  return p.shape.batch * p.image_strides.b * int64_t(sizeof(Image)) >= kLargeResult;
}

// A finished row in the image's dtype; an affine map of the pixels multiplies it by the channel's scale.
template <typename Grad, typename Image, typename Taps, typename T>
void write_row(const ImageGradProblem<Grad, Image, Taps>& p, int64_t b, int64_t plane, int32_t y,
               const PlaneLayout& layout, T* row) {
  const int64_t size = p.shape.width * layout.step;
  if (p.affine.scale != nullptr) {
    for (int64_t c = 0; c < layout.step; ++c) {
      const T scale = T(p.affine.scale[plane + c]);
      for (int64_t e = c; e < size; e += layout.step) row[e] *= scale;
    }
  }
  Image* to = p.grad_images + b * p.image_strides.b + plane * p.image_strides.c + y * p.image_strides.y;
  if constexpr (std::is_same_v<Image, T>) {
    if (streams(p)) return stream_line(to, row, size);
  }
  store_line(to, row, size);
}

// What one image's gradient is made of.
template <typename T>
struct TransposedCrop {
  int64_t number;
  Transposed<T> window;
};

template <typename Grad, typename Image, typename Taps>
void compute(const ImageGradProblem<Grad, Image, Taps>& p, const Units& units, int64_t begin, int64_t end) {
  using T = Accumulate<Image>;
  const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
  const int64_t step = layout.step, row_size = p.shape.width * step;
  const int64_t b = begin / units.per_item();
  Arena arena;
  TransposedCrop<T>* crops = arena.take<TransposedCrop<T>>(p.shape.windows);
  int64_t count = 0;
  int32_t most = 1;
  for (int64_t n = b * p.shape.windows; n < (b + 1) * p.shape.windows; ++n) {
    const auto runs = crop_runs(arena, p.taps, p.shape, n);
    if (!runs.finite) continue;
    crops[count] = {n, make_transposed<T>(arena, runs, step)};
    most = greater<int32_t>(most, int32_t(crops[count].window.y.most));
    ++count;
  }
  const LineShape shape = piece_of_row(arena, 0, p.shape.out_width, kMaxBandTaps, p.grad_strides, step);
  LineMaker<Grad, T, 1> lines(arena, rows_of(p.grad_output, p.grad_strides, p.shape, true, step), shape, most,
                              {});
  T* const row = arena.take<T>(row_size + kLanes);
  T* const columns = arena.take<T>(row_size + kLanes);
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      for (int32_t y = unit.row_begin; y < unit.row_end; ++y) {
        bool start = true;
        for (int64_t k = 0; k < count; ++k) {
          const Transposed<T>& t = crops[k].window;
          if (!t.reads_row(y)) continue;
          const int32_t at = y - t.y.begin;
          lines.start_plane(p.grad_output + crop_offset(p.grad_strides, crops[k].number, p.shape.windows) +
                                plane * p.grad_strides.c,
                            plane, false);
          lines.make({t.y.first[at] * p.grad_strides.y,
                      0,
                      t.y.count[at],
                      0,
                      t.y.weights + t.y.offset[at],
                      {},
                      false});
          add_columns(t, step, lines.lines()[0], lines.all_finite(), row_size, start, row, columns);
          start = false;
        }
        if (start) fill_row(T(0), row_size, row);
        write_row(p, b, plane, y, layout, row);
      }
    }
  }
  finish_streaming();
}

}  // namespace racnn::cpu::RACNN_ISA
