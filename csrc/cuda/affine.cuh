// SPDX-License-Identifier: BSD-3-Clause
//
// Normalisation on the device: a chunk of channels' scales and shifts, passed to a kernel by value. A launch
// function launches once for each chunk.
#pragma once

#include <algorithm>

#include "../crop.h"
#include "runtime.cuh"

namespace racnn {

constexpr int kAffineChannels = 128;  // 1 or 2 KB of the 4 KB that a kernel's parameters may take

template <typename T>
struct AffineChunk {
  T scale[kAffineChannels], shift[kAffineChannels];  // the first `channels` of them
  bool used;

  __device__ __forceinline__ T scale_of(int64_t c) const { return used ? scale[c] : T(1); }
  __device__ __forceinline__ T shift_of(int64_t c) const { return used ? shift[c] : T(0); }
};

// The channels that one launch can take, and their numbers.
inline int64_t affine_chunk(const ChannelAffine& affine, int64_t channels) {
  return affine.scale == nullptr ? channels : std::min<int64_t>(channels, kAffineChannels);
}

template <typename T>
AffineChunk<T> make_affine_chunk(const ChannelAffine& affine, int64_t first, int64_t count) {
  AffineChunk<T> chunk{};
  chunk.used = affine.scale != nullptr;
  for (int64_t c = 0; chunk.used && c < count; ++c) {
    chunk.scale[c] = T(affine.scale[first + c]);
    chunk.shift[c] = T(affine.shift[first + c]);
  }
  return chunk;
}

}  // namespace racnn
