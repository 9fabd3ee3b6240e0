// SPDX-License-Identifier: BSD-3-Clause
//
// Crops out of several images, of one size or of many, as problems of one image each: what kernels know
// nothing of. Host only.
#pragma once

#include <limits>

#include "problems.h"

namespace racnn {

// Crops [first, first + count) of N, each on an image of its own, as windows of one image.
template <typename Taps>
void take_part(CropShape& shape, Strides& crops, Taps& taps, int64_t first, int64_t count) {
  shape.batch = 1;
  shape.windows = count;
  crops = {0, crops.b, crops.c, crops.y, crops.x};
  taps.data += first * taps.values;
}

template <typename Image, typename Out, typename Taps>
ForwardProblem<Image, Out, Taps> part_of(ForwardProblem<Image, Out, Taps> p, int64_t first, int64_t count) {
  p.out += first * p.out_strides.b;
  take_part(p.shape, p.out_strides, p.taps, first, count);
  return p;
}

// Without a workspace.
template <typename Image, typename Grad, typename Taps>
WindowGradProblem<Image, Grad, Taps> part_of(WindowGradProblem<Image, Grad, Taps> p, int64_t first,
                                             int64_t count) {
  p.grad_output += first * p.grad_strides.b;
  p.grad_windows += first * p.taps.values;
  take_part(p.shape, p.grad_strides, p.taps, first, count);
  return p;
}

// Calls use(image, first, count) for neighbouring crops out of one image, with kOutside for such as have
// none.
template <typename Use>
void each_run(const ImageIndex& index, int64_t crops, const Use& use) {
  for (int64_t first = 0, end = 0; first < crops; first = end) {
    const int64_t image = index.image_of(first);
    while (++end < crops && index.image_of(end) == image) {
    }
    use(image, first, end - first);
  }
}

}  // namespace racnn
