// SPDX-License-Identifier: BSD-3-Clause
//
// From numpy arrays to the problems of csrc/problems.h. bfloat16 travels as the bits in uint16. Images have
// shape (B, C, H, W), crops (B, K, C, h, w), any strides; windows (B, K, 3 or 4), contiguous. With an image
// index they are (N, C, h, w) and (N, 3 or 4), whatever B is.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/problems.h"
#include "cuda_emulation.h"
#if defined(RACNN_TRACED)
#include "tracer.h"
#endif

namespace racnn {

namespace py = pybind11;

struct Options {
  Boundary boundary;
  double mask_steepness;  // 0: no mask
  std::vector<double> scale, shift;
  int64_t max_blocks;
  Interpolation interpolation;
  bool antialias;
  std::vector<double> offset;

  ChannelAffine affine() const {
    if (scale.empty()) return {};
    return {scale.data(), shift.data(), offset.empty() ? nullptr : offset.data()};
  }
};

template <typename T>
struct Type {};

template <typename T>
bool holds(const py::array& array) {
  if constexpr (std::is_same_v<T, __half>) {
    return array.dtype().char_() == 'e';
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return array.dtype().char_() == 'H';
  } else {
    return py::isinstance<py::array_t<T>>(array);
  }
}

// Calls f(Type<T>) with the one of `Types` whose numbers `array` holds.
template <typename... Types, typename F>
void with_type(const py::array& array, const F& f) {
  const bool found = ((holds<Types>(array) && (f(Type<Types>{}), true)) || ...);
  if (!found) throw std::invalid_argument("no kernel for this dtype");
}

// The pairs of images and crops that have kernels. Under a sanitizer those are left out that differ from
// another only by a conversion: they would take minutes to compile. Costs are counted of the pairs in
// cost_cases.py.
template <typename Image, typename Crop>
constexpr bool is_built() {
#if defined(RACNN_FEW_TYPES)
  return (std::is_same_v<Image, Crop> && !std::is_same_v<Image, __nv_bfloat16>) ||
         (std::is_same_v<Image, float> && std::is_same_v<Crop, __half>) ||
         (std::is_same_v<Image, uint8_t> && std::is_same_v<Crop, __nv_bfloat16>);
#elif defined(RACNN_ONLY_FLOAT32)
  return std::is_same_v<Image, float> && std::is_same_v<Crop, float>;
#elif defined(RACNN_TRACED)
  return std::is_same_v<Image, Crop> ||
         (std::is_same_v<Image, uint8_t> &&
          (std::is_same_v<Crop, float> || std::is_same_v<Crop, __nv_bfloat16>));
#else
  using Types = BackendTypes<__half, __nv_bfloat16>;
#define RACNN_IS_PAIR(IMAGE, CROP) \
  (std::is_same_v<Image, Types::IMAGE> && std::is_same_v<Crop, Types::CROP>) ||
  return RACNN_FUSED_PAIRS(RACNN_IS_PAIR) false;
#undef RACNN_IS_PAIR
#endif
}

// Calls f(Type<Image>, Type<Crop>).
template <typename F>
void with_types(const py::array& images, const py::array& crops, const F& f) {
  with_type<float, __half, __nv_bfloat16, double, uint8_t>(images, [&]<typename Image>(Type<Image> image) {
    with_type<float, __half, __nv_bfloat16, double, uint8_t>(crops, [&]<typename Crop>(Type<Crop> crop) {
      if constexpr (is_built<Image, Crop>()) {
        f(image, crop);
      } else {
        throw std::invalid_argument("no kernel for this pair of dtypes");
      }
    });
  });
}

inline Strides strides_of(const py::array& a) {
  const auto stride = [&](py::ssize_t axis) { return int64_t(a.strides(axis)) / int64_t(a.itemsize()); };
  const py::ssize_t d = a.ndim();
  return {stride(0), d == 5 ? stride(1) : 0, stride(d - 3), stride(d - 2), stride(d - 1)};
}

inline CropShape shape_of(const py::array& images, const py::array& crops) {
  const py::ssize_t d = crops.ndim();
  return {crops.shape(0),
          d == 5 ? crops.shape(1) : 1,
          crops.shape(d - 3),
          int32_t(images.shape(2)),
          int32_t(images.shape(3)),
          int32_t(crops.shape(d - 2)),
          int32_t(crops.shape(d - 1))};
}

inline int32_t window_values(const py::array& windows) { return int32_t(windows.shape(windows.ndim() - 1)); }

template <typename T>
const T* data(const py::array& a) {
  return static_cast<const T*>(a.data());
}

template <typename T>
T* mutable_data(py::array& a) {
  return static_cast<T*>(a.mutable_data());
}

// int64, contiguous: of which image each crop is.
using Index = std::optional<py::array>;

inline ImageIndex image_index(const Index& index, const py::array& images) {
  if (!index) return {};
  if (!holds<int64_t>(*index)) throw std::invalid_argument("an image index must be int64");
  return {data<int64_t>(*index), images.shape(0)};
}

template <typename Acc>
WindowSpec<Acc> window_spec(const py::array& windows, const Options& options) {
  if (windows.itemsize() != sizeof(Acc))
    throw std::invalid_argument("windows must have the accumulation type");
  return {data<Acc>(windows), window_values(windows), options.boundary, Acc(options.mask_steepness)};
}

// Of those the pairs that have kernels for FilterSpec, which take longest to compile.
template <typename Image, typename Crop>
constexpr bool has_runs() {
#if defined(RACNN_FEW_TYPES) || defined(RACNN_TRACED)
  return (std::is_same_v<Image, Crop> && sizeof(Image) > 1) ||
         (std::is_same_v<Image, uint8_t> && std::is_same_v<Crop, __nv_bfloat16>);
#else
  return true;
#endif
}

// Calls f(taps) with what csrc/torch/crop_operators.h takes for these options.
template <typename Image, typename Crop, typename F>
void with_taps(const py::array& windows, const Options& options, const F& f) {
  using Acc = Accumulate<Image>;
  const WindowSpec<Acc> spec = window_spec<Acc>(windows, options);
  const bool plain = options.interpolation == Interpolation::kBilinear && !options.antialias;
  if (plain && options.offset.empty() && options.boundary != Boundary::kWindow) return f(spec);
  if constexpr (has_runs<Image, Crop>()) {
    const bool antialias = options.antialias || options.interpolation == Interpolation::kLanczos3;
    f(FilterSpec<Acc>{spec, options.interpolation, antialias});
  } else {
    throw std::invalid_argument("no kernel with filters for this pair of dtypes");
  }
}

struct LineAlignedDelete {
  void operator()(void* memory) const { operator delete(memory, std::align_val_t(128)); }
};

// A kernel's workspace, of exactly the size that it asks for, so that AddressSanitizer sees its ends.
template <typename T>
std::unique_ptr<T, LineAlignedDelete> poisoned(int64_t count) {
  const size_t bytes = size_t(count) * sizeof(T);
  std::unique_ptr<T, LineAlignedDelete> memory(static_cast<T*>(operator new(bytes, std::align_val_t(128))));
  std::fill_n(memory.get(), count, std::numeric_limits<T>::quiet_NaN());
#if defined(RACNN_TRACED)
  emulation::tracer::add_region("workspace", memory.get(), bytes, false);
#endif
  return memory;
}

inline void check_launch(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error("the launch failed: cudaError " + std::to_string(int(error)));
}

void bind_forward(py::module_& m);
void bind_window_grad(py::module_& m);
void bind_image_grad(py::module_& m);
void bind_boxcar_grad(py::module_& m);
void bind_taps(py::module_& m);
void bind_tracer(py::module_& m);  // with RACNN_TRACED

}  // namespace racnn
