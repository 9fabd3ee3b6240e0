// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d I[y, x] = sum over i, j of b_i(y) a_j(x) g[i, j], as a gather: the outputs that read pixel x are
// one contiguous run (positions do not decrease in j), so for each image row the few output rows that read it
// are added up, then one band contracts the columns. Nobody else writes the row: no atomics, one fixed order.
#pragma once

#include "blend.h"
#include "lines.h"
#include "runs.h"

namespace racnn::cpu::RACNN_ISA {

// More outputs than this on one pixel (a strong zoom, or a border that collects many): no band.
constexpr int64_t kMaxBandTaps = 16;

// One axis read backwards: for pixels [begin, end), the run of outputs that read them and their weights.
template <typename T>
struct Inverse {
  int32_t begin, end;
  int32_t* first;   // [end - begin]: first output that reads the pixel
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
  Band<T> band;  // of narrow pixels with few outputs each
  T* band_weights;

  bool reads_row(int32_t row) const {
    return x.end > x.begin && row >= y.begin && row < y.end && y.count[row - y.begin] > 0;
  }
};

template <typename T, typename Taps>
Transposed<T> make_transposed(Arena& arena, const Taps& taps, int64_t step) {
  Transposed<T> t{make_inverse<T>(arena, taps.columns), make_inverse<T>(arena, taps.rows), {}, nullptr};
  const int64_t pixels = t.x.end > t.x.begin ? t.x.end - t.x.begin : 0;
  const int64_t most = t.x.most;
  if (pixels == 0 || most > kMaxBandTaps || step >= kWidePixel) return t;
  // Every pixel reads `most` outputs, some with the weight 0: runs at the right end start earlier.
  const int32_t latest = int32_t(taps.columns.out - most);
  int32_t* first = arena.take<int32_t>(pixels);
  for (int64_t i = 0; i < pixels; ++i) first[i] = t.x.first[i] < latest ? t.x.first[i] : latest;
  t.band = make_band<T>(arena, first, pixels, step, most, taps.columns.out);
  t.band_weights = make_weights(arena, t.band);
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t skip = t.x.first[i] - first[i];
    for (int64_t k = 0; k < t.x.count[i]; ++k) {
      set_weight(t.band, t.band_weights, i, skip + k, t.x.weights[t.x.offset[i] + k]);
    }
  }
  return t;
}

// to[x] = sum over j of a_j(x) * line[j], for the pixels of the window. The band's zero weights are left out
// where they would matter: 0 * Inf is NaN.
template <typename T>
void contract_columns(const Transposed<T>& t, int64_t step, const T* line, T* to) {
  const int64_t pixels = t.x.end - t.x.begin;
  if (t.band_weights != nullptr && all_finite(line, t.band.length)) {
    const T* const weights[1] = {t.band_weights};
    T* const out[1] = {to};
    return contract<1>(t.band, line, weights, out);
  }
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t count = t.x.count[i];
    const T* weights = t.x.weights + t.x.offset[i];
    const T* from = line + t.x.first[i] * step;
    if (step >= kWidePixel) {
      blend<1>(from, step, count, {weights}, {to + i * step}, step);
      continue;
    }
    for (int64_t c = 0; c < step; ++c) {
      T total = T(0);
      for (int64_t k = 0; k < count; ++k) total += weights[k] * from[k * step + c];
      to[i * step + c] = total;
    }
  }
}

// Buffers of one thread.
template <typename T>
struct ImageGradLines {
  T* row;      // [W * step]: a row of the image's gradient
  T* outputs;  // [w * step]: the output rows of one image row, added up
  T* widened;  // [w * step]
  T* columns;  // [W * step]
};

// lines.outputs = sum over the output rows that read image row y of b_i(y) * g[i]
template <typename Problem, typename Grad, typename T>
void add_up_outputs(const Problem& p, const Inverse<T>& y_axis, const PlaneLayout& layout, const Grad* grad,
                    int32_t y, const ImageGradLines<T>& lines) {
  const int64_t size = p.shape.out_width * layout.step;
  const int32_t row = y - y_axis.begin;
  const T* weights = y_axis.weights + y_axis.offset[row];
  for (int32_t k = 0; k < y_axis.count[row]; ++k) {
    const Grad* from = grad + (y_axis.first[row] + k) * p.grad_strides.y;
    const T* g =
        line_of(from, p.grad_strides.x, p.grad_strides.c, p.shape.out_width, layout.step, lines.widened);
    const T weight = weights[k];
    if (k == 0) {
      for (int64_t e = 0; e < size; ++e) lines.outputs[e] = weight * g[e];
    } else {
      for (int64_t e = 0; e < size; ++e) lines.outputs[e] += weight * g[e];
    }
  }
}

// Adds a window to lines.row, or starts the row with it.
template <typename T>
void add_columns(const Transposed<T>& t, int64_t step, int64_t row_size, bool start,
                 const ImageGradLines<T>& lines) {
  const int64_t begin = t.x.begin * step, end = t.x.end * step;
  if (start) {
    for (int64_t e = 0; e < begin; ++e) lines.row[e] = T(0);
    contract_columns(t, step, lines.outputs, lines.row + begin);
    for (int64_t e = end; e < row_size; ++e) lines.row[e] = T(0);
  } else {
    contract_columns(t, step, lines.outputs, lines.columns);
    for (int64_t e = begin; e < end; ++e) lines.row[e] += lines.columns[e - begin];
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
  for (int64_t e = 0; e < size; e += kLanes) store_lanes<T>(to + e, load(row + e), size - e);
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
  const int64_t row_size = p.shape.width * layout.step, out_size = p.shape.out_width * layout.step;
  const int64_t b = begin / units.per_item();
  Arena arena;
  TransposedCrop<T>* crops = arena.take<TransposedCrop<T>>(p.shape.windows);
  int64_t count = 0;
  for (int64_t n = b * p.shape.windows; n < (b + 1) * p.shape.windows; ++n) {
    const auto taps = crop_taps(arena, p.taps, p.shape, n);
    if (taps.finite) crops[count++] = {n, make_transposed<T>(arena, taps, layout.step)};
  }
  const ImageGradLines<T> lines{arena.take<T>(row_size + kLanes), arena.take<T>(out_size + kLanes),
                                arena.take<T>(out_size + kLanes), arena.take<T>(row_size + kLanes)};
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) {
      for (int32_t y = unit.row_begin; y < unit.row_end; ++y) {
        bool start = true;
        for (int64_t k = 0; k < count; ++k) {
          const Transposed<T>& t = crops[k].window;
          if (!t.reads_row(y)) continue;
          const Grad* grad = p.grad_output + crop_offset(p.grad_strides, crops[k].number, p.shape.windows) +
                             plane * p.grad_strides.c;
          add_up_outputs(p, t.y, layout, grad, y, lines);
          add_columns(t, layout.step, row_size, start, lines);
          start = false;
        }
        if (start) fill_row(T(0), row_size, lines.row);
        write_row(p, b, plane, y, layout, lines.row);
      }
    }
  }
  finish_streaming();
}

}  // namespace racnn::cpu::RACNN_ISA
