// SPDX-License-Identifier: BSD-3-Clause
//
// RA-CNN's surrogate window gradient, its part along one axis, on host and device.
//
// The authors' backward pass differentiates not the sampler but the soft boxcar around the window,
// h(x - l) - h(x - r) with the window's edges l, r = centre -/+ half and h(z) = 1 / (1 + exp(-steepness z)),
// and takes output j of `out` to lie at x_j = l + 2 half j / out, a left-edge sample of the unclipped window.
// Hence x_j - l = 2 half j / out and x_j - r = 2 half (j / out - 1): the centre cancels.
#pragma once

#include "geometry.h"

namespace racnn {

template <typename T>
struct BoxcarTap {
  T inside;           // h(x_j - l) - h(x_j - r), the boxcar itself
  T edge_difference;  // h'(x_j - l) - h'(x_j - r), per pixel
  T edge_sum;         // h'(x_j - l) + h'(x_j - r), per pixel
};

// `half <= 0` counts as 0, as in the forward pass.
template <typename T>
RACNN_HOST_DEVICE BoxcarTap<T> make_boxcar_tap(T half, T steepness, int32_t j, int32_t out) {
  const T side = T(2) * (half > T(0) ? half : T(0));
  const T low = sigmoid(steepness * side * (T(j) / T(out)));
  const T high = sigmoid(steepness * side * (T(j - out) / T(out)));
  const T d_low = steepness * low * (T(1) - low), d_high = steepness * high * (T(1) - high);
  return {low - high, d_low - d_high, d_low + d_high};
}

}  // namespace racnn
