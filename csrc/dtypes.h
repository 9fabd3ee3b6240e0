// SPDX-License-Identifier: BSD-3-Clause
//
// The pairs of image and crop dtypes that have kernels, by torch's names; Python composes the others from
// these. A backend has a type of each name: see BackendTypes.
#pragma once

#include <cstdint>

// Of images and crops that both have gradients.
#define RACNN_FLOATING_PAIRS(X) \
  X(Float, Float)               \
  X(Float, Half)                \
  X(Float, BFloat16)            \
  X(Half, Half)                 \
  X(Half, Float)                \
  X(BFloat16, BFloat16)         \
  X(BFloat16, Float)            \
  X(Double, Double)

// Of images without a gradient.
#define RACNN_BYTE_PAIRS(X) \
  X(Byte, Float)            \
  X(Byte, Half)             \
  X(Byte, BFloat16)

#define RACNN_FUSED_PAIRS(X) \
  RACNN_FLOATING_PAIRS(X)    \
  RACNN_BYTE_PAIRS(X)        \
  X(Byte, Byte)

namespace racnn {

template <typename Half16, typename BFloat>
struct BackendTypes {
  using Float = float;
  using Double = double;
  using Byte = uint8_t;
  using Half = Half16;
  using BFloat16 = BFloat;
};

}  // namespace racnn
