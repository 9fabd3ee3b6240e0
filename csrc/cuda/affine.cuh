// SPDX-License-Identifier: BSD-3-Clause
//
// Normalisation on the device: the channels' scales, shifts and offsets, passed to a kernel by value.
#pragma once

#include "../problems.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kMostNormalised = 128;  // channels: up to 3 KB of the 4 KB that a kernel's parameters may take

template <typename T>
struct AffineParams {
  T scale[kMostNormalised] = {}, shift[kMostNormalised] = {}, offset[kMostNormalised] = {};
  bool used;

  explicit AffineParams(const ChannelAffine& affine, int64_t channels) : used(affine.scale != nullptr) {
    for (int64_t c = 0; used && c < channels; ++c) {
      scale[c] = T(affine.scale[c]);
      shift[c] = T(affine.shift[c]);
      if (affine.offset != nullptr) offset[c] = T(affine.offset[c]);
    }
  }
};

}  // namespace racnn
