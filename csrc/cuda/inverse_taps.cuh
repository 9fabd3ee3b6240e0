// SPDX-License-Identifier: BSD-3-Clause
//
// Which outputs read a given pixel, along one axis: the tap tables the other way round.
//
// The lower pixels do not decrease with j, and output j reads its lower pixel and the one above. So the
// outputs that read x are those from the first with a lower pixel >= x - 1 up to, not including, the first
// with one >= x + 1; x is the upper pixel of those before the first with one >= x, the lower of the others. A
// table of these firsts over the pixels of a tile gives all three. A window's weights follow from a table of
// the fractions p_j - floor(p_j), to the bit those of linear_tap; the masks' factors come after. Pixels are
// compared as integers: float32 does not hold those beyond 2^24.
#pragma once

#include "taps.cuh"

namespace racnn {

constexpr int kTabledOutputs = 512;  // per axis; the outputs of a stronger zoom are taken in several rounds

// The outputs around which a window's first j with a lower pixel >= `pixel` lies, by the formula; off where
// positions are clamped or coincide.
template <typename T>
RACNN_HOST_DEVICE int32_t guess_output(const Axis<T>& axis, int32_t pixel) {
  const T u = (T(pixel) + T(0.5) - axis.centre) / axis.half;
  return int32_t(clamp_to(T(0.5) * (u + T(1)) * T(axis.out), T(0), T(axis.out)));  // NaN becomes 0
}

template <typename T>
RACNN_HOST_DEVICE int32_t guess_output(const TableAxis<T>& axis, int32_t) {
  return axis.out / 2;
}

// The first j with a lower pixel >= `pixel`. The guess, checked, leaves a bisection of about one step; where
// it is off the bisection is longer, and right.
template <typename Axis>
RACNN_HOST_DEVICE int32_t first_output_at(const Axis& axis, int32_t pixel) {
  int32_t low = 0, high = axis.out;  // lower pixel of low - 1 < pixel <= that of high
  const int32_t guess = guess_output(axis, pixel), before = guess - 2, after = guess + 1;
  if (before >= 0 && lower_pixel(axis, before) < pixel) low = before + 1;
  if (after < axis.out && lower_pixel(axis, after) >= pixel) high = after;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (lower_pixel(axis, middle) < pixel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Whether any output reads one of the pixels [begin, begin + count).
template <typename Axis>
RACNN_HOST_DEVICE bool reaches(const Axis& axis, int32_t begin, int32_t count) {
  return lower_pixel(axis, axis.out - 1) >= begin - 1 && lower_pixel(axis, 0) < begin + count;
}

// The outputs [begin, end) along an axis that read a pixel: as their upper one before `middle`, then as their
// lower one.
struct Outputs {
  int32_t begin, middle, end;
};

template <typename T>
RACNN_HOST_DEVICE T mask_at(const Axis<T>& axis, int32_t pixel) {
  return axis.steepness > T(0) ? mask_value(axis, pixel) : T(1);
}

template <typename T>
RACNN_HOST_DEVICE T mask_at(const TableAxis<T>&, int32_t) {
  return T(1);  // it is in the weights
}

// The tables of one axis, in shared memory, for the pixels [begin, begin + count) of a tile and a round of
// outputs.
template <typename T, typename Axis>
struct InverseTaps {
  static constexpr bool kGiven = std::is_same_v<Axis, TableAxis<T>>;
  static constexpr int kWeights = kGiven ? 2 : 1;

  T* weights;       // [kTabledOutputs, kWeights], of the round: fractions, or both weights as given
  T* masks;         // [count]
  int32_t* firsts;  // [count + 2]: the first output with a lower pixel >= begin - 1, ..., begin + count

  static RACNN_HOST_DEVICE size_t bytes(int32_t count) {
    const size_t size = (kTabledOutputs * kWeights + count) * sizeof(T) + (count + 2) * sizeof(int32_t);
    return (size + 15) / 16 * 16;
  }

  __device__ __forceinline__ InverseTaps(unsigned char* memory, int32_t count)
      : weights(reinterpret_cast<T*>(memory)),
        masks(weights + kTabledOutputs * kWeights),
        firsts(reinterpret_cast<int32_t*>(masks + count)) {}

  // By all threads of the block, the second after a barrier.
  __device__ __forceinline__ void make_firsts(const Axis& axis, int32_t begin, int32_t count) const {
    for (int32_t i = threadIdx.x; i < count + 2; i += blockDim.x) {
      firsts[i] = first_output_at(axis, begin + i - 1);
      if (i < count) masks[i] = mask_at(axis, begin + i);
    }
  }
  __device__ __forceinline__ void make_weights(const Axis& axis, int32_t begin, int32_t end) const {
    for (int32_t j = begin + int32_t(threadIdx.x); j < end; j += blockDim.x) {
      if constexpr (kGiven) {
        weights[2 * (j - begin)] = axis.weights[2 * int64_t(j)];
        weights[2 * (j - begin) + 1] = axis.weights[2 * int64_t(j) + 1];
      } else {
        weights[j - begin] = sample_position(axis, j).beyond;
      }
    }
  }

  // The outputs of the round from `begin` on that read pixel i of the tile, counted from `begin`.
  __device__ __forceinline__ Outputs reading(int32_t i, int32_t begin) const {
    return {firsts[i] > begin ? firsts[i] - begin : 0, firsts[i + 1] - begin,
            lesser(firsts[i + 2] - begin, kTabledOutputs)};
  }

  // The weight of a pixel in one of the outputs that read it, without the mask.
  __device__ __forceinline__ T weight(int32_t output, const Outputs& reading) const {
    if constexpr (kGiven) return weights[2 * output + (output < reading.middle)];
    return output < reading.middle ? weights[output] : T(1) - weights[output];
  }
};

}  // namespace racnn
