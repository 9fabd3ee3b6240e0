// SPDX-License-Identifier: BSD-3-Clause
//
// Crops out of a list of images of different sizes: the operators of crop_operators.h, as one problem for
// each run of windows on the same image, which a Backend computes together. The index is the host's: it says
// what to launch.
#pragma once

#include "../parts.h"
#include "crop_operators.h"

namespace racnn {

// Images [C, H, W], of one dtype, device and number of channels, and which of them each window is of.
struct CheckedList {
  const std::vector<Tensor>& images;
  const int64_t* index;
  int64_t windows, channels;

  CheckedList(const std::vector<Tensor>& images, const Tensor& windows, const Tensor& image_index)
      : images(images), windows(windows.size(0)) {
    check(!images.empty(), "there must be an image");
    for (const Tensor& image : images) {
      check(image.dim() == 3 && image.size(0) == images[0].size(0) &&
                image.scalar_type() == images[0].scalar_type() && same_device(image, windows),
            "images must have shape (C, H, W) and agree in C, dtype and device with each other and windows");
      checked_side(image.size(1));
      checked_side(image.size(2));
    }
    channels = images[0].size(0);
    check(windows.dim() == 2, "windows must have shape (N, 3|4)");
    check(!image_index.is_cuda() && image_index.scalar_type() == ScalarType::Long && image_index.dim() == 1 &&
              image_index.is_contiguous() && image_index.size(0) == this->windows,
          "image_index must be int64 of shape (N,), contiguous, on the CPU");
    index = image_index.const_data_ptr<int64_t>();
    for (int64_t n = 0; n < this->windows; ++n) {
      check(index[n] >= 0 && index[n] < int64_t(images.size()), "image_index must name images of the list");
    }
  }

  // The parts of a problem that lacks images: what they are part of is set here.
  template <typename Image, typename Problem>
  std::vector<Problem> parts_of(const Problem& problem) const {
    std::vector<Problem> parts;
    each_run({index, int64_t(images.size())}, windows, [&](int64_t at, int64_t first, int64_t count) {
      const Tensor& image = images[size_t(at)];
      Problem part = part_of(problem, first, count);
      part.images = static_cast<const Image*>(image.const_data_ptr());
      part.image_strides = strides_of(image);
      part.image_strides.b = 0;
      part.shape.height = int32_t(image.size(1));
      part.shape.width = int32_t(image.size(2));
      parts.push_back(part);
    });
    return parts;
  }
};

template <typename Backend>
Tensor crop_list(std::vector<Tensor> images, Tensor windows, Tensor image_index, int64_t out_height,
                 int64_t out_width, std::string boundary, std::optional<double> mask_steepness,
                 std::vector<double> scale, std::vector<double> shift, ScalarType dtype,
                 std::vector<double>,  // the surrogate gradient's constants
                 std::string interpolation, bool antialias, std::vector<double> offset, bool channels_last) {
  const CheckedList list(images, windows, image_index);
  const CropShape shape =
      make_shape(windows, windows, list.channels, 1, 1, out_height, out_width, Backend::kMirrors ? 5 : 4);
  const TapOptions options = parse_taps(boundary, mask_steepness, interpolation, antialias, !offset.empty());
  const ChannelAffine affine = make_affine<Backend>({scale, shift, offset}, list.channels);
  const Tensor dense_windows = contiguous_windows(windows, images[0].scalar_type());
  const Tensor out =
      empty_dense({list.windows, list.channels, out_height, out_width}, channels_last, dtype, windows);
  if (is_empty(shape)) return out;
  const typename Backend::Guard guard(windows);
  with_types<
      Backend>(images[0].scalar_type(), dtype, [&]<typename Image, typename Out>(Type<Image>, Type<Out>) {
    with_taps(
        dense_windows.const_data_ptr<Accumulate<Image>>(), window_values(dense_windows), options,
        [&]<typename Taps>(Taps taps) {
          Backend::compute(list.parts_of<Image>(ForwardProblem<Image, Out, Taps>{
              nullptr, static_cast<Out*>(out.mutable_data_ptr()), shape, {}, strides_of(out), taps, affine}));
        });
  });
  return out;
}

template <typename Backend>
Tensor crop_list_window_grad(Tensor grad_output, std::vector<Tensor> images, Tensor windows,
                             Tensor image_index, std::string boundary, std::optional<double> mask_steepness,
                             std::vector<double> scale, std::vector<double> shift, std::string interpolation,
                             bool antialias) {
  const CheckedList list(images, windows, image_index);
  const CropShape shape = make_grad_shape(grad_output, windows, 1, 1);
  check(shape.channels == list.channels, "grad_output and images must agree in C");
  const TapOptions options = parse_taps(boundary, mask_steepness, interpolation, antialias);
  const ChannelAffine affine = make_affine<Backend>({scale, shift, kNoNumbers}, list.channels);
  const Tensor dense_windows = contiguous_windows(windows, images[0].scalar_type());
  const ScalarType acc_dtype = windows.scalar_type();
  const Tensor grad_windows = empty_dense(Sizes(windows), false, acc_dtype, windows);
  if (list.windows == 0) return grad_windows;
  const typename Backend::Guard guard(windows);
  with_types<Backend>(images[0].scalar_type(), grad_output.scalar_type(),
                      [&]<typename Image, typename Grad>(Type<Image>, Type<Grad>) {
                        using Acc = Accumulate<Image>;
                        if constexpr (!std::is_same_v<Grad, uint8_t>) {
                          with_taps(dense_windows.const_data_ptr<Acc>(), window_values(dense_windows),
                                    options, [&]<typename Taps>(Taps taps) {
                                      auto parts = list.parts_of<Image>(WindowGradProblem<Image, Grad, Taps>{
                                          static_cast<const Grad*>(grad_output.const_data_ptr()),
                                          nullptr,
                                          grad_windows.mutable_data_ptr<Acc>(),
                                          nullptr,
                                          shape,
                                          strides_of(grad_output),
                                          {},
                                          taps,
                                          affine});
                                      int64_t sums = 0;
                                      for (const auto& part : parts)
                                        sums += Backend::window_grad_workspace(part.shape);
                                      Workspace<Backend, Acc> workspace(
                                          checked_product("a workspace", {sums, kAxisSums}), acc_dtype,
                                          windows);
                                      auto* next = reinterpret_cast<Window<Acc>*>(workspace.data());
                                      for (auto& part : parts) {
                                        part.workspace = next;
                                        next += Backend::window_grad_workspace(part.shape);
                                      }
                                      Backend::compute(parts);
                                    });
                        } else {
                          check(false, "a uint8 crop has no gradient");
                        }
                      });
  return grad_windows;
}

}  // namespace racnn
