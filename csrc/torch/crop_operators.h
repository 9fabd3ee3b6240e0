// SPDX-License-Identifier: BSD-3-Clause
//
// From torch to the kernels: the operators on windows, written once for every backend on the stable ABI.
// Their overloads `coded` are those of eager calls without numbers a channel: what an argument costs to
// convert is a good part of a small call. A Backend is a class with
//
//   BackendTypes                              its base: the C++ type of each dtype
//   kMostNormalised                           channels that a kernel can normalise
//   kMirrors                                  whether crops may be mirrored: windows of five numbers
//   Guard(const Tensor&)                      makes the tensor's device current, for its lifetime
//   window_grad_workspace(const CropShape&)   how much workspace its reductions need
//   boxcar_grad_workspace(const CropShape&, Energy)
//   kSmallWorkspace                           so many numbers of it may lie on the host's stack
//   compute(problem)                          runs the kernel of any struct in problems.h, or of several
#pragma once

#include <optional>
#include <string>

#include "../tap_options.h"
#include "tensors.h"

namespace racnn {

inline bool has_window_axis(const Tensor& windows) { return windows.dim() == 3; }

// `images` is [B, C, ...] or [B, K, C, ...]: only its batch size is compared. Windows hold at most
// `most_values` numbers.
inline CropShape make_shape(const Tensor& batched, const Tensor& windows, int64_t channels, int64_t height,
                            int64_t width, int64_t out_height, int64_t out_width, int64_t most_values = 4) {
  check(windows.dim() == 2 || windows.dim() == 3, "windows must have shape (B, 3|4) or (B, K, 3|4)");
  const int64_t values = windows.size(windows.dim() - 1);
  check(values >= 3 && values <= most_values,
        most_values == 4 ? "windows must hold 3 or 4 numbers each" : "windows must hold 3 to 5 numbers each");
  check(windows.size(0) == batched.size(0), "windows must have the batch size of the other tensors");
  check(same_device(batched, windows), "all tensors must be on one device");
  return {windows.size(0),
          has_window_axis(windows) ? windows.size(1) : 1,
          channels,
          checked_side(height),
          checked_side(width),
          checked_side(out_height),
          checked_side(out_width)};
}

// The shape of a backward: grad_output is [B, C, h, w] or, with K windows an image, [B, K, C, h, w].
inline CropShape make_grad_shape(const Tensor& grad, const Tensor& windows, int64_t height, int64_t width) {
  const int64_t dim = grad.dim();
  check(dim == (has_window_axis(windows) ? 5 : 4), "grad_output must have the shape of the crops");
  const CropShape shape =
      make_shape(grad, windows, grad.size(dim - 3), height, width, grad.size(dim - 2), grad.size(dim - 1));
  check(dim == 4 || grad.size(1) == shape.windows, "grad_output and windows must agree in K");
  return shape;
}

// Out of which of so many images each of N windows is cut; nothing: all images have the same number of
// windows.
inline ImageIndex make_index(const std::optional<Tensor>& index, const Tensor& windows, int64_t images) {
  if (!index) return {};
  check(windows.dim() == 2, "windows must have shape (N, 3|4) with image_index");
  check(index->scalar_type() == ScalarType::Long && index->dim() == 1 && index->is_contiguous() &&
            index->size(0) == windows.size(0) && same_device(*index, windows),
        "image_index must be int64 of shape (N,), contiguous, on the device of windows");
  return {index->const_data_ptr<int64_t>(), images};
}

// Numbers of each.
inline int32_t window_values(const Tensor& windows) { return int32_t(windows.size(windows.dim() - 1)); }

inline Tensor contiguous_windows(const Tensor& windows, ScalarType image_dtype) {
  check(windows.scalar_type() == accumulate_type(image_dtype),
        "windows must be float32, or float64 with float64 images");
  return windows.is_contiguous() ? windows : torch::stable::contiguous(windows);
}

// Numbers a channel: none, or scale and shift, or all three.
struct AffineNumbers {
  const std::vector<double>& scale;
  const std::vector<double>& shift;
  const std::vector<double>& offset;
};

inline const std::vector<double> kNoNumbers;
inline const AffineNumbers kNoAffine{kNoNumbers, kNoNumbers, kNoNumbers};

template <typename Backend>
ChannelAffine make_affine(const AffineNumbers& numbers, int64_t channels) {
  const auto& [scale, shift, offset] = numbers;
  check(offset.empty() || (!scale.empty() && offset.size() == scale.size()),
        "offset needs scale and shift, and must hold one number a channel");
  if (scale.empty()) return {};
  check(channels <= Backend::kMostNormalised, "too many channels for a kernel to normalise");
  check(int64_t(scale.size()) == channels && int64_t(shift.size()) == channels,
        "scale and shift must hold one number a channel");
  return {scale.data(), shift.data(), offset.empty() ? nullptr : offset.data()};
}

template <typename Backend>
Tensor forward(const Tensor& images, const Tensor& windows, int64_t out_height, int64_t out_width,
               const TapOptions& options, const AffineNumbers& affine, ScalarType dtype,
               std::optional<bool> channels_last, const std::optional<Tensor>& image_index = {}) {
  check(images.dim() == 4, "images must have shape (B, C, H, W)");
  const CropShape shape = make_shape(image_index ? windows : images, windows, images.size(1), images.size(2),
                                     images.size(3), out_height, out_width, Backend::kMirrors ? 5 : 4);
  check(same_device(images, windows), "all tensors must be on one device");
  const ImageIndex index = make_index(image_index, windows, images.size(0));
  const Tensor dense_windows = contiguous_windows(windows, images.scalar_type());
  Sizes sizes{shape.batch};
  if (has_window_axis(windows)) sizes.push_back(shape.windows);
  for (const int64_t size : {shape.channels, int64_t(shape.out_height), int64_t(shape.out_width)}) {
    sizes.push_back(size);
  }
  const Tensor out = empty_dense(sizes, channels_last.value_or(is_channels_last(images)), dtype, images);
  if (is_empty(shape)) return out;
  const typename Backend::Guard guard(images);
  with_types<Backend>(images.scalar_type(), dtype, [&]<typename Image, typename Out>(Type<Image>, Type<Out>) {
    with_taps(dense_windows.const_data_ptr<Accumulate<Image>>(), window_values(dense_windows), options,
              [&]<typename Taps>(Taps taps) {
                Backend::compute(ForwardProblem<Image, Out, Taps>{
                    static_cast<const Image*>(images.const_data_ptr()),
                    static_cast<Out*>(out.mutable_data_ptr()), shape, strides_of(images), strides_of(out),
                    taps, make_affine<Backend>(affine, shape.channels), index});
              });
  });
  return out;
}

template <typename Backend>
Tensor crop_forward(Tensor images, Tensor windows, int64_t out_height, int64_t out_width,
                    std::string boundary, std::optional<double> mask_steepness, std::vector<double> scale,
                    std::vector<double> shift, ScalarType dtype,
                    std::vector<double>,  // the surrogate gradient's constants
                    std::string interpolation, bool antialias, std::vector<double> offset,
                    std::optional<bool> channels_last, std::optional<Tensor> image_index) {
  return forward<Backend>(images, windows, out_height, out_width,
                          parse_taps(boundary, mask_steepness, interpolation, antialias, !offset.empty()),
                          {scale, shift, offset}, dtype, channels_last, image_index);
}

template <typename Backend>
Tensor crop_forward_coded(Tensor images, Tensor windows, int64_t out_height, int64_t out_width, int64_t code,
                          double mask_steepness) {
  return forward<Backend>(images, windows, out_height, out_width, OptionCode{code}.taps(mask_steepness),
                          kNoAffine, ScalarType(OptionCode{code}.dtype()), OptionCode{code}.channels_last());
}

template <typename Backend>
Tensor window_grad(const Tensor& grad_output, const Tensor& images, const Tensor& windows,
                   const TapOptions& options, const AffineNumbers& affine,
                   const std::optional<Tensor>& image_index = {}) {
  check(images.dim() == 4, "images must have shape (B, C, H, W)");
  const CropShape shape = make_grad_shape(grad_output, windows, images.size(2), images.size(3));
  check((image_index || images.size(0) == shape.batch) && images.size(1) == shape.channels &&
            same_device(images, windows),
        "grad_output and images must agree in B, C and device");
  const ImageIndex index = make_index(image_index, windows, images.size(0));
  const Tensor dense_windows = contiguous_windows(windows, images.scalar_type());
  const ScalarType acc_dtype = windows.scalar_type();
  const Tensor grad_windows = empty_dense(Sizes(windows), false, acc_dtype, windows);
  if (shape.batch == 0 || shape.windows == 0) return grad_windows;
  const typename Backend::Guard guard(images);
  with_types<Backend>(
      images.scalar_type(), grad_output.scalar_type(),
      [&]<typename Image, typename Grad>(Type<Image>, Type<Grad>) {
        using Acc = Accumulate<Image>;
        if constexpr (!std::is_same_v<Grad, uint8_t>) {
          static_assert(sizeof(Window<Acc>) == kAxisSums * sizeof(Acc));
          const int64_t numbers =
              checked_product("a workspace", {Backend::window_grad_workspace(shape), kAxisSums});
          Workspace<Backend, Acc> workspace(numbers, acc_dtype, windows);
          with_taps(
              dense_windows.const_data_ptr<Acc>(), window_values(dense_windows), options,
              [&]<typename Taps>(Taps taps) {
                Backend::compute(WindowGradProblem<Image, Grad, Taps>{
                    static_cast<const Grad*>(grad_output.const_data_ptr()),
                    static_cast<const Image*>(images.const_data_ptr()), grad_windows.mutable_data_ptr<Acc>(),
                    reinterpret_cast<Window<Acc>*>(workspace.data()), shape, strides_of(grad_output),
                    strides_of(images), taps, make_affine<Backend>(affine, shape.channels), index});
              });
        } else {
          check(false, "a uint8 crop has no gradient");
        }
      });
  return grad_windows;
}

template <typename Backend>
Tensor crop_window_grad(Tensor grad_output, Tensor images, Tensor windows, std::string boundary,
                        std::optional<double> mask_steepness, std::vector<double> scale,
                        std::vector<double> shift, std::string interpolation, bool antialias,
                        std::optional<Tensor> image_index) {
  return window_grad<Backend>(grad_output, images, windows,
                              parse_taps(boundary, mask_steepness, interpolation, antialias),
                              {scale, shift, kNoNumbers}, image_index);
}

template <typename Backend>
Tensor crop_window_grad_coded(Tensor grad_output, Tensor images, Tensor windows, int64_t code,
                              double mask_steepness) {
  return window_grad<Backend>(grad_output, images, windows, OptionCode{code}.taps(mask_steepness), kNoAffine);
}

template <typename Backend>
Tensor image_grad(const Tensor& grad_output, const Tensor& windows, int64_t height, int64_t width,
                  bool channels_last, ScalarType dtype, const TapOptions& options,
                  const AffineNumbers& affine, const std::optional<Tensor>& image_index = {},
                  int64_t images = 0) {
  CropShape shape = make_grad_shape(grad_output, windows, height, width);
  Strides grad_strides = strides_of(grad_output);
  const ImageIndex index = make_index(image_index, windows, images);
  if (image_index) {
    check(images >= 0, "there must be a number of images");
    shape.windows = shape.batch;
    shape.batch = images;
    grad_strides = {0, grad_strides.b, grad_strides.c, grad_strides.y, grad_strides.x};
  }
  const Tensor dense_windows = contiguous_windows(windows, dtype);
  const Tensor grad_images =
      empty_dense({shape.batch, shape.channels, height, width}, channels_last, dtype, grad_output);
  if (shape.batch == 0 || shape.channels == 0) return grad_images;
  const typename Backend::Guard guard(grad_output);
  with_types<Backend>(
      dtype, grad_output.scalar_type(), [&]<typename Image, typename Grad>(Type<Image>, Type<Grad>) {
        if constexpr (!std::is_same_v<Image, uint8_t>) {
          with_taps(
              dense_windows.const_data_ptr<Accumulate<Image>>(), window_values(dense_windows), options,
              [&]<typename Taps>(Taps taps) {
                Backend::compute(ImageGradProblem<Grad, Image, Taps>{
                    static_cast<const Grad*>(grad_output.const_data_ptr()),
                    static_cast<Image*>(grad_images.mutable_data_ptr()), shape, grad_strides,
                    strides_of(grad_images), taps, make_affine<Backend>(affine, shape.channels), index});
              });
        } else {
          check(false, "a uint8 image has no gradient");
        }
      });
  return grad_images;
}

template <typename Backend>
Tensor crop_image_grad(Tensor grad_output, Tensor windows, int64_t height, int64_t width,
                       std::string boundary, std::optional<double> mask_steepness, std::vector<double> scale,
                       bool channels_last, ScalarType dtype, std::string interpolation, bool antialias,
                       std::optional<Tensor> image_index, int64_t images) {
  return image_grad<Backend>(grad_output, windows, height, width, channels_last, dtype,
                             parse_taps(boundary, mask_steepness, interpolation, antialias),
                             {scale, scale, kNoNumbers}, image_index, images);
}

template <typename Backend>
Tensor crop_image_grad_coded(Tensor grad_output, Tensor windows, int64_t height, int64_t width, int64_t code,
                             double mask_steepness) {
  const OptionCode options{code};
  return image_grad<Backend>(grad_output, windows, height, width, options.channels_last().value_or(false),
                             ScalarType(options.dtype()), options.taps(mask_steepness), kNoAffine);
}

template <typename Backend>
Tensor crop_boxcar_grad(Tensor grad_output, Tensor windows, double steepness, std::string energy,
                        double scale, double shrink) {
  const CropShape shape = make_grad_shape(grad_output, windows, 1, 1);
  const ScalarType acc_dtype = accumulate_type(grad_output.scalar_type());
  const Tensor dense_windows = contiguous_windows(windows, grad_output.scalar_type());
  const Tensor grad_windows = empty_dense(Sizes(windows), false, acc_dtype, windows);
  if (shape.batch == 0 || shape.windows == 0) return grad_windows;
  const typename Backend::Guard guard(grad_output);
  const Energy kind = parse<Energy>("energy", energy, {"abs", "square"});
  const ScalarType dtype = grad_output.scalar_type();
  with_types<Backend>(dtype, dtype, [&]<typename Grad, typename Same>(Type<Grad>, Type<Same>) {
    using Acc = Accumulate<Grad>;
    if constexpr (std::is_same_v<Grad, Same> && !std::is_same_v<Grad, uint8_t>) {
      Workspace<Backend, Acc> workspace(Backend::boxcar_grad_workspace(shape, kind), acc_dtype, windows);
      Backend::compute(BoxcarProblem<Grad>{
          static_cast<const Grad*>(grad_output.const_data_ptr()), grad_windows.mutable_data_ptr<Acc>(),
          workspace.data(), shape, strides_of(grad_output), dense_windows.const_data_ptr<Acc>(),
          window_values(windows), kind, Acc(steepness), Acc(scale), Acc(shrink)});
    } else {
      check(false, "a uint8 crop has no gradient");
    }
  });
  return grad_windows;
}

}  // namespace racnn
