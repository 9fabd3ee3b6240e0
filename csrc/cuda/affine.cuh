// SPDX-License-Identifier: BSD-3-Clause
//
// Normalisation on the device: the channels' scales and shifts, passed to a kernel by value.
#pragma once

#include "../problems.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kMostNormalised = 128;  // channels: 1 or 2 KB of the 4 KB that a kernel's parameters may take

template <typename T>
struct AffineParams {
  T scale[kMostNormalised] = {}, shift[kMostNormalised] = {};  // of the first channels
  bool used;

  explicit AffineParams(const ChannelAffine& affine, int64_t channels) : used(affine.scale != nullptr) {
    for (int64_t c = 0; used && c < channels; ++c) {
      scale[c] = T(affine.scale[c]);
      shift[c] = T(affine.shift[c]);
    }
  }

  __device__ __forceinline__ T scale_of(int64_t c) const { return used ? scale[c] : T(1); }
  __device__ __forceinline__ T shift_of(int64_t c) const { return used ? shift[c] : T(0); }
};

}  // namespace racnn
