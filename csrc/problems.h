// SPDX-License-Identifier: BSD-3-Clause
//
// The plain structures that describe the computations to the kernels, on the CPU and on the GPU.
// B images, K windows on each: N = B * K crops, crop n = b * K + k. No torch types here.
#pragma once

#include <type_traits>
#include <utility>

#include "filter_runs.h"

// The pairs of image and crop dtypes that have kernels, by torch's names; Python composes the others from
// these. Of images and crops that both have gradients:
#define RACNN_FLOATING_PAIRS(X) \
  X(Float, Float)               \
  X(Float, Half)                \
  X(Float, BFloat16)            \
  X(Half, Half)                 \
  X(Half, Float)                \
  X(BFloat16, BFloat16)         \
  X(BFloat16, Float)            \
  X(Double, Double)

// Of images without a gradient:
#define RACNN_BYTE_PAIRS(X) \
  X(Byte, Float)            \
  X(Byte, Half)             \
  X(Byte, BFloat16)

#define RACNN_FUSED_PAIRS(X) \
  RACNN_FLOATING_PAIRS(X)    \
  RACNN_BYTE_PAIRS(X)        \
  X(Byte, Byte)

namespace racnn {

// The C++ type of each name; those of 16 bits are the backend's.
template <typename Half16, typename BFloat>
struct BackendTypes {
  using Float = float;
  using Double = double;
  using Byte = uint8_t;
  using Half = Half16;
  using BFloat16 = BFloat;
};

// What a kernel computes in, and the windows' type: float32, float64 for float64.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

struct CropShape {
  int64_t batch;                  // B
  int64_t windows;                // K
  int64_t channels;               // C
  int32_t height, width;          // H, W of an image
  int32_t out_height, out_width;  // h, w of a crop
};

// Element strides of images [B, C, H, W] (k = 0) or crops [B, K, C, h, w]; any value, zero included.
struct Strides {
  int64_t b, k, c, y, x;
};

// Out of which image each crop is cut where that is not n / K: the shape then has B = N and K = 1 or, of a
// gradient of images, B of them and K = N on each, of which an image takes those that are its own.
struct ImageIndex {
  const int64_t* of_crop = nullptr;  // [N]; null: there is none
  int64_t images = 0;

  // Of crop n; kOutside if there is no such image: the crop is NaN, without a gradient.
  RACNN_HOST_DEVICE int64_t image_of(int64_t n) const {
    const int64_t image = of_crop[n];
    return image >= 0 && image < images ? image : kOutside;
  }
};

// Where crop n = b * K + k begins.
RACNN_HOST_DEVICE int64_t crop_offset(const Strides& strides, int64_t n, int64_t windows) {
  return n / windows * strides.b + n % windows * strides.k;
}

// Calls use(n) for the crops of image b, in order.
template <typename Use>
RACNN_HOST_DEVICE void each_crop_of_image(const ImageIndex& index, const CropShape& s, int64_t b,
                                          const Use& use) {
  for (int64_t k = 0; k < s.windows; ++k) {
    if (index.of_crop == nullptr) use(b * s.windows + k);
    if (index.of_crop != nullptr && index.of_crop[k] == b) use(k);
  }
}

RACNN_HOST_DEVICE int64_t crops_of_image(const ImageIndex& index, const CropShape& s, int64_t b) {
  int64_t count = 0;
  each_crop_of_image(index, s, b, [&](int64_t) { ++count; });
  return count;
}

// The windows and the options that change the tap tables. T is the accumulation type.
template <typename T>
struct WindowSpec {
  const T* data;   // [N, values], contiguous
  int32_t values;  // 3: tx, ty, tl; 4: tx, ty, tw, th; 5: tx, ty, tw, is_mirrored, th
  Boundary boundary;
  T steepness;  // of the mask, per pixel; 0: no mask
};

template <typename T>
RACNN_HOST_DEVICE Window<T> load_window(const WindowSpec<T>& spec, int64_t n) {
  return load_window(spec.data + n * spec.values, spec.values);
}

// Whether the columns of crop n go from right to left: of the CPU's forward kernels alone.
template <typename T>
RACNN_HOST_DEVICE bool is_mirrored(const WindowSpec<T>& spec, int64_t n) {
  return spec.values == 5 && spec.data[n * 5 + 3] != T(0);
}

// Windows whose taps are runs of any length. A type of its own: WindowSpec's have two entries, as a constant.
template <typename T>
struct FilterSpec : WindowSpec<T> {
  Interpolation interpolation;
  bool antialias;
};

// In the place of windows: tap tables that were made elsewhere. Crop n is the contraction
//
//     out[i, j] = sum over s, t in {0, 1} of
//                 row weight[i][s] * column weight[j][t] * I[row[i] + s, column[j] + t]
//
// linear in the pixels, in the row weights and in the column weights; with the incoming gradient g the form
// is linear in four things, and all its derivatives, of any order, are contractions of the same kind.
template <typename T>
struct TapTable {
  const int32_t* pixels;  // [N, out]: each output's lower pixel, non-decreasing; those outside are skipped
  const T* weights;       // [N, out, 2]
};

template <typename T>
struct TapTables {
  TapTable<T> rows, columns;
};

template <typename T>
RACNN_HOST_DEVICE bool is_mirrored(const TapTables<T>&, int64_t) {
  return false;
}

// One axis of one crop in a table: its taps are used as those of an Axis.
template <typename T>
struct TableAxis {
  const int32_t* pixels;  // [out]
  const T* weights;       // [out, 2]
  int32_t size, out;
};

template <typename T>
RACNN_HOST_DEVICE int32_t lower_pixel(const TableAxis<T>& axis, int32_t j) {
  return axis.pixels[j];
}

template <typename T>
RACNN_HOST_DEVICE Tap<T> linear_tap(const TableAxis<T>& axis, int32_t j) {
  const int64_t lower = axis.pixels[j], upper = lower + 1;
  Tap<T> tap{kOutside, kOutside, T(0), T(0)};
  if (lower >= 0 && lower < axis.size) {
    tap.lower = int32_t(lower);
    tap.w_lower = axis.weights[2 * int64_t(j)];
  }
  if (upper >= 0 && upper < axis.size) {
    tap.upper = int32_t(upper);
    tap.w_upper = axis.weights[2 * int64_t(j) + 1];
  }
  return tap;
}

template <typename T>
RACNN_HOST_DEVICE Tap<T> make_tap(const TableAxis<T>& axis, int32_t j) {
  return linear_tap(axis, j);
}

// Both axes of a crop: Axis of WindowSpec, FilterAxis of FilterSpec, TableAxis of TapTables.
template <typename Axis>
struct alignas(16) CropAxes {
  Axis x, y;
  bool finite;  // otherwise the crop is NaN, and sends nothing to its image
};

template <typename T>
RACNN_HOST_DEVICE CropAxes<Axis<T>> crop_axes(const WindowSpec<T>& spec, const CropShape& s, int64_t n) {
  const Window<T> w = load_window(spec, n);
  return {make_axis(w.x, w.half_x, s.width, s.out_width, spec.boundary, spec.steepness),
          make_axis(w.y, w.half_y, s.height, s.out_height, spec.boundary, spec.steepness), is_finite(w)};
}

template <typename T>
RACNN_HOST_DEVICE CropAxes<FilterAxis<T>> crop_axes(const FilterSpec<T>& spec, const CropShape& s,
                                                    int64_t n) {
  const WindowSpec<T>& windows = spec;
  const CropAxes<Axis<T>> plain = crop_axes(windows, s, n);
  return {make_filter_axis(plain.x, spec.interpolation, spec.antialias, spec.boundary),
          make_filter_axis(plain.y, spec.interpolation, spec.antialias, spec.boundary), plain.finite};
}

template <typename T>
RACNN_HOST_DEVICE TableAxis<T> table_axis(const TapTable<T>& table, int32_t size, int32_t out, int64_t n) {
  return {table.pixels + n * out, table.weights + n * out * 2, size, out};
}

template <typename T>
RACNN_HOST_DEVICE CropAxes<TableAxis<T>> crop_axes(const TapTables<T>& taps, const CropShape& s, int64_t n) {
  return {table_axis(taps.columns, s.width, s.out_width, n), table_axis(taps.rows, s.height, s.out_height, n),
          true};
}

template <typename Taps>
constexpr bool kHasWindows = true;
template <typename T>
constexpr bool kHasWindows<TapTables<T>> = false;

template <typename Taps>
using AxesOf = decltype(crop_axes(std::declval<Taps>(), CropShape{}, 0));

// A pixel I of channel c enters as I * scale[c] + shift[c], and offset[c] is added to what comes out, with
// FilterSpec alone. Host memory, C numbers each; null: as it is.
struct ChannelAffine {
  const double* scale;
  const double* shift;
  const double* offset;
};

template <typename Image, typename Out, typename Taps = WindowSpec<Accumulate<Image>>>
struct ForwardProblem {
  const Image* images;  // [B, C, H, W]
  Out* out;             // [B, K, C, h, w]
  CropShape shape;
  Strides image_strides, out_strides;
  Taps taps;  // WindowSpec, FilterSpec or TapTables
  ChannelAffine affine{};
  ImageIndex index{};
};

template <typename T>
using TapForwardProblem = ForwardProblem<T, T, TapTables<T>>;

template <typename Image, typename Grad, typename Taps = WindowSpec<Accumulate<Image>>>
struct WindowGradProblem {
  using Acc = Accumulate<Image>;
  const Grad* grad_output;  // [B, K, C, h, w]
  const Image* images;      // [B, C, H, W]
  Acc* grad_windows;        // [N, values], contiguous
  Window<Acc>* workspace;   // as many as the backend asked for
  CropShape shape;
  Strides grad_strides, image_strides;
  Taps taps;  // WindowSpec or FilterSpec
  ChannelAffine affine;
  ImageIndex index{};
};

template <typename Grad, typename Image, typename Taps = WindowSpec<Accumulate<Image>>>
struct ImageGradProblem {
  const Grad* grad_output;  // [B, K, C, h, w]
  Image* grad_images;       // [B, C, H, W], every element is written
  CropShape shape;
  Strides grad_strides, image_strides;
  Taps taps;               // WindowSpec, FilterSpec or TapTables
  ChannelAffine affine{};  // the shift does not matter here
  ImageIndex index{};
};

template <typename T>
using TapImageGradProblem = ImageGradProblem<T, T, TapTables<T>>;

enum class Energy : int32_t {
  kAbs,     // |g| of each channel, normalised by its maximum over the crop
  kSquare,  // the squared norm of g over channels, normalised by its maximum over the crop
};

// RA-CNN's surrogate window gradient; steepness and shrink in pixels of the image at hand.
template <typename Grad>
struct BoxcarProblem {
  using Acc = Accumulate<Grad>;
  const Grad* grad_output;  // [B, K, C, h, w]
  Acc* grad_windows;        // [N, values], contiguous
  Acc* workspace;           // as many numbers as the backend asked for
  CropShape shape;          // height and width are not used
  Strides grad_strides;
  const Acc* windows;  // [N, values], contiguous
  int32_t values;
  Energy energy;
  Acc steepness, scale, shrink;
};

}  // namespace racnn
