// SPDX-License-Identifier: BSD-3-Clause
//
// d loss / d I[y, x] = sum over i, j of b_i(y) a_j(x) g[i, j], as a gather: the outputs that read pixel x are
// one contiguous run (positions do not decrease in j), so for each image row the few output rows that read it
// are added up, then one band contracts the columns. Nobody else writes the row: no atomics, one fixed order.
#pragma once

#include "channel_image_grad.h"
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

// The transposed crop of one window: its pixels' gradients by the lines of g that its image rows read. Its
// rows are `pitch` pixels long, whole registers: those behind its last pixel are 0.
template <typename T>
struct Transposed {
  int64_t number;  // of the crop
  Inverse<T> x, y;
  int64_t pitch = 0;
  RowPlan<T>* plans = nullptr;  // [y pixels]
  bool by_band = false;         // else pixel by pixel
  Band<T> band{};
  const T* weights = nullptr;

  int32_t pixels() const { return x.end > x.begin ? x.end - x.begin : 0; }
};

template <typename T>
Transposed<T> make_transposed(Arena& arena, const CropRuns<T>& runs, int64_t number, int64_t step,
                              int64_t row_stride) {
  Transposed<T> t{number, make_inverse<T>(arena, runs.columns), make_inverse<T>(arena, runs.rows)};
  const int32_t rows = t.y.end > t.y.begin ? t.y.end - t.y.begin : 0, pixels = t.pixels();
  t.plans = arena.take<RowPlan<T>>(rows);
  for (int32_t i = 0; i < rows; ++i) {
    t.plans[i] = {t.y.first[i] * row_stride, 0, t.y.count[i], 0, t.y.weights + t.y.offset[i], {}, false};
  }
  constexpr int64_t kOne = kRegisterLanes<T>;
  t.pitch = ((pixels * step + kOne - 1) / kOne * kOne + step - 1) / step;
  t.by_band = rows > 0 && pixels > 0 && t.x.most <= kMaxBandTaps && step < kWidePixel;
  if (!t.by_band) return t;
  int32_t* first = arena.take<int32_t>(t.pitch);
  for (int64_t x = 0; x < t.pitch; ++x) first[x] = t.x.first[lesser<int64_t>(x, pixels - 1)];
  t.band = make_band<T>(arena, first, t.pitch, step, t.x.most);
  t.weights = make_lanes<T>(arena, t.band, t.x.most, [&](int64_t k, int64_t x) {
    return x < pixels && k < t.x.count[x] ? t.x.weights[t.x.offset[x] + k] : T(0);
  });
  return t;
}

// to[x] = sum over j of a_j(x) * line[j], for the pixels of the window in one row; `to` takes whole
// registers.
template <typename T>
RACNN_NOINLINE void contract_columns(const Transposed<T>& t, const T* line, T* to) {
  with_kind(t.band, [&](auto kind) {
    const Band<T> band = t.band;
    contract_row<decltype(kind)>(band, Line<T>{line}, t.weights, static_cast<const T*>(nullptr), to,
                                 INT64_MAX);
  });
}

// The same pixel by pixel, without the band's zero weights: 0 * Inf is NaN.
template <typename T>
void contract_pixels(const Transposed<T>& t, int64_t step, const T* line, T* to) {
  for (int64_t i = 0; i < t.pixels(); ++i) {
    const int64_t count = t.x.count[i];
    const T* const weights = t.x.weights + t.x.offset[i];
    blend<1>(line + t.x.first[i] * step, step, count, {weights}, {to + i * step}, step);
  }
  fill_row(T(0), (t.pitch - t.pixels()) * step, to + t.pixels() * step);
}

// Beyond the size of a cache, a result is written past it: what is read next would be evicted, and each line
// would be fetched before it is overwritten.
template <typename Grad, typename Image, typename Taps>
RACNN_INLINE bool streams(const ImageGradProblem<Grad, Image, Taps>& p) {
  constexpr int64_t kLargeResult = int64_t(32) << 20;
  return p.shape.batch * p.image_strides.b * int64_t(sizeof(Image)) >= kLargeResult;
}

// One image's gradient, from those of all windows that read it.
template <typename Grad, typename Image, typename Taps>
class BandImageGrad {
 public:
  using T = Accumulate<Image>;
  using Lines = LineMaker<Grad, T, 1>;

  BandImageGrad(Arena& arena, const ImageGradProblem<Grad, Image, Taps>& p, int64_t b)
      : p_(p),
        step_(plane_layout(p.shape.channels, p.image_strides).step),
        row_size_(p.shape.width * step_),
        images_(p.grad_images + b * p.image_strides.b),
        shape_(piece_of_row(arena, 0, p.shape.out_width, kMaxBandTaps, p.grad_strides, step_)),
        crops_(arena.take<Transposed<T>>(crops_of_image(p.index, p.shape, b))),
        lines_(make_crops(arena, b)),
        row_(arena.take<T>(row_size_ + kRegisterLanes<T> * kWidePixel)),
        columns_(arena.take<T>(most_columns_ + kRegisterLanes<T>)) {}

  // The rows of `unit` in one plane.
  void rows(const Unit& unit, int64_t plane) {
    for (int32_t y = unit.row_begin; y < unit.row_end; ++y) {
      bool started = false;
      for (int64_t k = 0; k < count_; ++k) {
        const Transposed<T>& t = crops_[k];
        if (y < t.y.begin || y >= t.y.end || t.y.count[y - t.y.begin] == 0) continue;
        start_crop(t, plane);
        lines_.make(t.plans[y - t.y.begin]);
        contract(t);
        started ? add_row(t) : start_row(t);
        started = true;
      }
      if (!started) fill_row(T(0), row_size_, row_);
      write(plane, y);
    }
  }

 private:
  Lines make_crops(Arena& arena, int64_t b) {
    int32_t longest = 1;
    each_crop_of_image(p_.index, p_.shape, b, [&](int64_t n) {
      const auto runs = crop_runs(arena, p_.taps, p_.shape, n);
      if (!runs.finite) return;
      const Transposed<T> t = make_transposed<T>(arena, runs, n, step_, p_.grad_strides.y);
      if (t.pixels() == 0) return;
      longest = greater(longest, int32_t(t.y.most));
      most_columns_ = greater(most_columns_, t.pitch * step_);
      crops_[count_++] = t;
    });
    return Lines(arena, rows_of(p_.grad_output, p_.grad_strides, p_.shape, true, step_), shape_, longest, {});
  }

  void start_crop(const Transposed<T>& t, int64_t plane) {
    lines_.start_plane(
        p_.grad_output + crop_offset(p_.grad_strides, t.number, p_.shape.windows) + plane * p_.grad_strides.c,
        plane, false);
  }

  // The columns of one line.
  void contract(const Transposed<T>& t) {
    const T* const line = lines_.lines()[0];
    t.by_band&& lines_.all_finite() ? contract_columns(t, line, columns_)
                                    : contract_pixels(t, step_, line, columns_);
  }

  // Whole registers are added, zeros behind the last pixel.
  void add_row(const Transposed<T>& t) {
    T* const to = row_ + t.x.begin * step_;
    const int64_t numbers = t.pixels() * step_;
    for (int64_t e = 0; e < numbers; e += kRegisterLanes<T>) {
      store_register<T>(to + e, load_register(to + e) + load_register(columns_ + e));
    }
  }

  void start_row(const Transposed<T>& t) {
    const int64_t begin = t.x.begin * step_, end = t.x.end * step_;
    fill_row(T(0), begin, row_);
    std::memcpy(row_ + begin, columns_, size_t(end - begin) * sizeof(T));
    fill_row(T(0), row_size_ - end, row_ + end);
  }

  // A finished row in the image's dtype; an affine map of the pixels multiplies it by the channel's scale.
  void write(int64_t plane, int32_t y) {
    if (p_.affine.scale != nullptr) {
      for (int64_t c = 0; c < step_; ++c) {
        const T scale = T(p_.affine.scale[plane + c]);
        for (int64_t e = c; e < row_size_; e += step_) row_[e] *= scale;
      }
    }
    Image* const to = images_ + plane * p_.image_strides.c + y * p_.image_strides.y;
    if constexpr (std::is_same_v<Image, T>) {
      if (streams(p_)) return stream_line(to, row_, row_size_);
    }
    store_line(to, row_, row_size_);
  }

  const ImageGradProblem<Grad, Image, Taps>& p_;
  int64_t step_, row_size_;
  Image* images_;
  LineShape shape_;
  Transposed<T>* crops_;
  int64_t count_ = 0, most_columns_ = 0;
  Lines lines_;
  T* row_;      // of the image's gradient
  T* columns_;  // of one window
};

template <typename Grad, typename Image, typename Taps>
void compute(const ImageGradProblem<Grad, Image, Taps>& p, Arena& arena, const Units& units, int64_t begin,
             int64_t end) {
  if (units.by_channels) return image_grad_of_images(p, arena, units, begin, end);
  BandImageGrad<Grad, Image, Taps> image(arena, p, begin / units.per_item());
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    for (int64_t plane = unit.plane_begin; plane < unit.plane_end; ++plane) image.rows(unit, plane);
  }
  finish_streaming();
}

}  // namespace racnn::cpu::RACNN_ISA
