// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels must compute, by plain loops in float64: every product of every output, added up. Which
// pixels an output reads, and with which weights, is asked of the shared headers in the kernels' own type.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../../csrc/boxcar_taps.h"
#include "tensor.h"

namespace racnn::cpu {

// A sum, and that of its terms' magnitudes, by which rounding errors are measured.
struct Sum {
  double value = 0.0, magnitude = 0.0;

  void add(double term) {
    value += term;
    magnitude += std::fabs(term);
  }
};

struct Entry {
  int32_t pixel;
  double weight;
  AxisGrad<double> grad;
};
using Entries = std::vector<Entry>;

template <typename T>
Entries two_entries(const Tap<T>& tap, const TapGrad<T>& grad) {
  Entries entries;
  if (tap.lower != kOutside)
    entries.push_back({tap.lower, tap.w_lower, {grad.centre_lower, grad.half_lower}});
  if (tap.upper != kOutside)
    entries.push_back({tap.upper, tap.w_upper, {grad.centre_upper, grad.half_upper}});
  return entries;
}

template <typename T>
Entries entries_of(const Axis<T>& axis, int32_t j) {
  return two_entries(make_tap(axis, j), make_tap_grad(axis, j));
}

template <typename T>
Entries entries_of(const TableAxis<T>& axis, int32_t j) {
  return two_entries(make_tap(axis, j), TapGrad<T>{});
}

template <typename T>
Entries entries_of(const FilterAxis<T>& axis, int32_t j) {
  Entries entries;
  const Run run = make_run<true>(axis, j, [&](int32_t, const RunEntry<T>& entry) {
    entries.push_back({0, double(entry.weight), {double(entry.grad.centre), double(entry.grad.half)}});
  });
  for (size_t k = 0; k < entries.size(); ++k) entries[k].pixel = run.first + int32_t(k);
  return entries;
}

template <typename Axis>
std::vector<Entries> table_of(const Axis& axis, int32_t out) {
  std::vector<Entries> table;
  for (int32_t j = 0; j < out; ++j) table.push_back(entries_of(axis, j));
  return table;
}

// Where a term belongs: the crop's number, and the image's pixel that one of its numbers reads.
struct Place {
  int64_t n, b, c;
  int32_t i, j, y, x;

  int64_t in_images(const Strides& s) const { return b * s.b + c * s.c + y * s.y + x * s.x; }
  int64_t in_crops(const Strides& s, int64_t windows) const {
    return crop_offset(s, n, windows) + c * s.c + i * s.y + j * s.x;
  }
};

// Out of which image crop n is cut.
inline int64_t image_of(const ImageIndex& index, const CropShape& s, int64_t n) {
  return index.of_crop == nullptr ? n / s.windows : index.image_of(n);
}

// Calls use(place, row entry, column entry) for all terms of `crops` crops. Those that are not finite, or out
// of no image, have none.
template <typename Taps, typename Use>
void for_each_term(const Taps& taps, const CropShape& s, const ImageIndex& index, int64_t crops,
                   const Use& use) {
  for (int64_t n = 0; n < crops; ++n) {
    const auto axes = crop_axes(taps, s, n);
    const int64_t b = image_of(index, s, n);
    if (!axes.finite || b == kOutside) continue;
    const std::vector<Entries> rows = table_of(axes.y, s.out_height);
    std::vector<Entries> columns = table_of(axes.x, s.out_width);
    if (is_mirrored(taps, n)) std::reverse(columns.begin(), columns.end());
    for (int64_t c = 0; c < s.channels; ++c) {
      for (int32_t i = 0; i < s.out_height; ++i) {
        for (int32_t j = 0; j < s.out_width; ++j) {
          for (const Entry& row : rows[size_t(i)]) {
            for (const Entry& column : columns[size_t(j)]) {
              use(Place{n, b, c, i, j, row.pixel, column.pixel}, row, column);
            }
          }
        }
      }
    }
  }
}

inline double scale_of(const ChannelAffine& affine, int64_t c) {
  return affine.scale ? affine.scale[c] : 1.0;
}
inline double shift_of(const ChannelAffine& affine, int64_t c) {
  return affine.shift ? affine.shift[c] : 0.0;
}

// Half a unit in the last place of a result.
template <typename T>
double half_unit(double value) {
  if (std::is_same_v<T, uint8_t>) return 0.5;
  if (std::is_same_v<T, Half>) return std::fabs(value) * 0x1p-11 + 0x1p-25;
  if (std::is_same_v<T, BFloat16>) return std::fabs(value) * 0x1p-8;
  return 0.0;
}

// Of rounding errors, relative to the largest sum of magnitudes (at least 1): weights that nearly cancel have
// errors of their own, which instruction sets with and without fused multiply-adds do not share.
template <typename Acc>
constexpr double kTolerance = std::is_same_v<Acc, double> ? 1e-14 : 4e-6;

class Comparison {
 public:
  template <typename T>
  void add(T actual, Sum expected) {
    if (std::is_same_v<T, uint8_t>) {  // saturated; NaN is 0
      expected.value = expected.value > 0.0 ? std::fmin(expected.value, 255.0) : 0.0;
    }
    magnitude_ = std::fmax(magnitude_, expected.magnitude);
    const double found = to_double(actual);
    if (found == expected.value || (std::isnan(found) && std::isnan(expected.value))) return;
    const double difference = std::fabs(found - expected.value) - half_unit<T>(expected.value);
    if (!(difference <= worst_)) worst_ = difference;
    if (std::isnan(difference)) worst_ = std::numeric_limits<double>::infinity();
  }

  // The largest difference, 1 being the tolerance.
  template <typename Acc>
  double worst() const {
    return worst_ / (kTolerance<Acc> * magnitude_);
  }

 private:
  double worst_ = 0.0, magnitude_ = 1.0;
};

template <typename Image, typename Out, typename Taps>
double largest_difference(const ForwardProblem<Image, Out, Taps>& p) {
  const CropShape& s = p.shape;
  std::vector<Sum> sums(size_t(s.batch * s.windows * s.channels * s.out_height * s.out_width));
  const auto index = [&](const Place& at) {
    return size_t(((at.n * s.channels + at.c) * s.out_height + at.i) * s.out_width + at.j);
  };
  const int64_t crops = s.batch * s.windows;
  for_each_term(p.taps, s, p.index, crops, [&](const Place& at, const Entry& row, const Entry& column) {
    const double weight = row.weight * column.weight;
    sums[index(at)].add(weight * scale_of(p.affine, at.c) *
                        to_double(p.images[at.in_images(p.image_strides)]));
    sums[index(at)].add(weight * shift_of(p.affine, at.c));
  });
  Comparison comparison;
  for (int64_t n = 0; n < crops; ++n) {
    const bool finite = crop_axes(p.taps, s, n).finite && image_of(p.index, s, n) != kOutside;
    for (int64_t c = 0; c < s.channels; ++c) {
      for (int32_t i = 0; i < s.out_height; ++i) {
        for (int32_t j = 0; j < s.out_width; ++j) {
          const Place at{n, 0, c, i, j, 0, 0};
          Sum expected = sums[index(at)];
          if (p.affine.offset != nullptr) expected.add(p.affine.offset[c]);
          if (!finite) expected.value = std::numeric_limits<double>::quiet_NaN();
          comparison.add(p.out[at.in_crops(p.out_strides, s.windows)], expected);
        }
      }
    }
  }
  return comparison.worst<Accumulate<Image>>();
}

// A window's sums as its numbers; 0 where it is on no image.
template <typename T>
double compare_window_grads(const T* grads, const T* windows, int32_t values,
                            const std::vector<Window<Sum>>& sums, const ImageIndex& index = {}) {
  Comparison comparison;
  for (size_t n = 0; n < sums.size(); ++n) {
    const Window<Sum>& sum = sums[n];
    const Window<double> parts{sum.x.value, sum.half_x.value, sum.y.value, sum.half_y.value};
    const Window<double> sizes{sum.x.magnitude, sum.half_x.magnitude, sum.y.magnitude, sum.half_y.magnitude};
    const T* window = windows + n * size_t(values);
    std::vector<double> window64(window, window + values), expected(window64), magnitudes(window64);
    store_window_grad(load_window(window64.data(), values), parts, values, expected.data());
    store_window_grad(load_window(window64.data(), values), sizes, values, magnitudes.data());
    if (index.of_crop != nullptr && index.image_of(int64_t(n)) == kOutside) {
      expected.assign(size_t(values), 0.0);
      magnitudes = expected;
    }
    for (size_t v = 0; v < size_t(values); ++v) {
      comparison.add(grads[n * size_t(values) + v], Sum{expected[v], magnitudes[v]});
    }
  }
  return comparison.worst<T>();
}

template <typename Image, typename Grad, typename Taps>
double largest_difference(const WindowGradProblem<Image, Grad, Taps>& p) {
  const int64_t crops = p.shape.batch * p.shape.windows;
  std::vector<Window<Sum>> sums(static_cast<size_t>(crops));
  for_each_term(p.taps, p.shape, p.index, crops, [&](const Place& at, const Entry& row, const Entry& column) {
    const double pixel = to_double(p.images[at.in_images(p.image_strides)]);
    const double g = to_double(p.grad_output[at.in_crops(p.grad_strides, p.shape.windows)]);
    Window<Sum>& sum = sums[size_t(at.n)];
    for (const double value : {pixel * scale_of(p.affine, at.c), shift_of(p.affine, at.c)}) {
      sum.x.add(g * value * row.weight * column.grad.centre);
      sum.half_x.add(g * value * row.weight * column.grad.half);
      sum.y.add(g * value * row.grad.centre * column.weight);
      sum.half_y.add(g * value * row.grad.half * column.weight);
    }
  });
  return compare_window_grads(p.grad_windows, p.taps.data, p.taps.values, sums, p.index);
}

template <typename Grad, typename Image, typename Taps>
double largest_difference(const ImageGradProblem<Grad, Image, Taps>& p) {
  const CropShape& s = p.shape;
  std::vector<Sum> sums(size_t(s.batch * s.channels * s.height * s.width));
  const auto index = [&](const Place& at) {
    return size_t(((at.b * s.channels + at.c) * s.height + at.y) * s.width + at.x);
  };
  const int64_t crops = p.index.of_crop == nullptr ? s.batch * s.windows : s.windows;
  for_each_term(p.taps, s, p.index, crops, [&](const Place& at, const Entry& row, const Entry& column) {
    const double g = to_double(p.grad_output[at.in_crops(p.grad_strides, s.windows)]);
    sums[index(at)].add(g * scale_of(p.affine, at.c) * row.weight * column.weight);
  });
  Comparison comparison;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t c = 0; c < s.channels; ++c) {
      for (int32_t y = 0; y < s.height; ++y) {
        for (int32_t x = 0; x < s.width; ++x) {
          const Place at{0, b, c, 0, 0, y, x};
          comparison.add(p.grad_images[at.in_images(p.image_strides)], sums[index(at)]);
        }
      }
    }
  }
  return comparison.worst<Accumulate<Image>>();
}

template <typename Grad>
double largest_difference(const BoxcarProblem<Grad>& p) {
  using T = Accumulate<Grad>;
  const CropShape& s = p.shape;
  const int64_t maps = p.energy == Energy::kAbs ? s.channels : 1, channels_each = s.channels / maps;
  std::vector<Window<Sum>> sums(size_t(s.batch * s.windows));
  for (int64_t n = 0; n < s.batch * s.windows; ++n) {
    const Window<T> window = load_window(p.windows + n * p.values, p.values);
    for (int64_t map = 0; map < maps; ++map) {
      const auto energy_at = [&](int32_t i, int32_t j) {
        double energy = 0.0;
        for (int64_t c = map * channels_each; c < (map + 1) * channels_each; ++c) {
          const Place at{n, n / s.windows, c, i, j, 0, 0};
          const double g = to_double(p.grad_output[at.in_crops(p.grad_strides, s.windows)]);
          energy += p.energy == Energy::kAbs ? std::fabs(g) : g * g;
        }
        return energy;
      };
      double most = 0.0;
      for (int32_t i = 0; i < s.out_height; ++i) {
        for (int32_t j = 0; j < s.out_width; ++j) most = std::fmax(most, energy_at(i, j));
      }
      for (int32_t i = 0; i < s.out_height; ++i) {
        const BoxcarTap<T> y = make_boxcar_tap(window.half_y, p.steepness, i, s.out_height);
        for (int32_t j = 0; j < s.out_width; ++j) {
          const BoxcarTap<T> x = make_boxcar_tap(window.half_x, p.steepness, j, s.out_width);
          const double share = energy_at(i, j) / most * double(p.scale), shrink = 0.5 * double(p.shrink);
          Window<Sum>& sum = sums[size_t(n)];
          sum.x.add(share * double(x.edge_difference) * double(y.inside));
          sum.y.add(share * double(x.inside) * double(y.edge_difference));
          sum.half_x.add(share * shrink);
          sum.half_x.add(-share * double(x.edge_sum) * double(y.inside));
          sum.half_y.add(share * shrink);
          sum.half_y.add(-share * double(x.inside) * double(y.edge_sum));
        }
      }
    }
  }
  return compare_window_grads(p.grad_windows, p.windows, p.values, sums);
}

}  // namespace racnn::cpu
