// SPDX-License-Identifier: BSD-3-Clause
//
// Which outputs read a given pixel, along one axis: the tap tables the other way round.
//
// The lower pixels floor(p_j) do not decrease with j, and output j reads its lower pixel and the one above.
// So the outputs that read x are those from the first with a lower pixel >= x - 1 up to, not including, the
// first with one >= x + 1; x is the upper pixel of those before the first with one >= x, the lower of the
// others. A table of these firsts over the pixels of a tile gives all three. The weights follow from a table
// of the fractions p_j - floor(p_j), to the bit those of linear_tap; the masks' factors come after. Pixels
// are compared as integers: float32 does not hold those beyond 2^24.
#pragma once

#include "taps.cuh"

namespace racnn {

constexpr int kTabledOutputs = 512;  // per axis; the outputs of a stronger zoom are taken in several rounds

// The first j with a lower pixel >= `pixel`. A guess from the formula, checked, leaves a bisection of about
// one step; where it is off (clamped or coinciding positions) the bisection is longer, and right.
template <typename T>
RACNN_HOST_DEVICE int32_t first_output_at(const Axis<T>& axis, int32_t pixel) {
  int32_t low = 0, high = axis.out;  // lower pixel of low - 1 < pixel <= that of high
  const T u = (T(pixel) + T(0.5) - axis.centre) / axis.half;
  const T guess = clamp_to(T(0.5) * (u + T(1)) * T(axis.out), T(0), T(axis.out));  // NaN becomes 0
  const int32_t before = int32_t(guess) - 2, after = int32_t(guess) + 1;
  if (before >= 0 && sample_position(axis, before).pixel < pixel) low = before + 1;
  if (after < axis.out && sample_position(axis, after).pixel >= pixel) high = after;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (sample_position(axis, middle).pixel < pixel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Whether any output reads one of the pixels [begin, begin + count).
template <typename T>
RACNN_HOST_DEVICE bool reaches(const Axis<T>& axis, int32_t begin, int32_t count) {
  return sample_position(axis, axis.out - 1).pixel >= begin - 1 &&
         sample_position(axis, 0).pixel < begin + count;
}

// The outputs [begin, end) along an axis that read a pixel: as their upper one before `middle`, then as their
// lower one.
struct Outputs {
  int32_t begin, middle, end;
};

// The tables of one axis, in shared memory, for the pixels [begin, begin + count) of a tile and a round of
// outputs.
template <typename T>
struct InverseTaps {
  T* fractions;     // [kTabledOutputs], of the round
  T* masks;         // [count]
  int32_t* firsts;  // [count + 2]: the first output with a lower pixel >= begin - 1, ..., begin + count

  static RACNN_HOST_DEVICE size_t bytes(int32_t count) {
    const size_t size = (kTabledOutputs + count) * sizeof(T) + (count + 2) * sizeof(int32_t);
    return (size + 15) / 16 * 16;
  }

  __device__ __forceinline__ InverseTaps(unsigned char* memory, int32_t count)
      : fractions(reinterpret_cast<T*>(memory)),
        masks(fractions + kTabledOutputs),
        firsts(reinterpret_cast<int32_t*>(masks + count)) {}

  // By all threads of the block, the second after a barrier.
  __device__ __forceinline__ void make_firsts(const Axis<T>& axis, int32_t begin, int32_t count) const {
    for (int32_t i = threadIdx.x; i < count + 2; i += blockDim.x) {
      firsts[i] = first_output_at(axis, begin + i - 1);
      if (i < count) masks[i] = axis.steepness > T(0) ? mask_value(axis, begin + i) : T(1);
    }
  }
  __device__ __forceinline__ void make_fractions(const Axis<T>& axis, int32_t begin, int32_t end) const {
    for (int32_t j = begin + int32_t(threadIdx.x); j < end; j += blockDim.x) {
      fractions[j - begin] = sample_position(axis, j).beyond;
    }
  }

  // The outputs of the round from `begin` on that read pixel i of the tile, counted from `begin`.
  __device__ __forceinline__ Outputs reading(int32_t i, int32_t begin) const {
    return {firsts[i] > begin ? firsts[i] - begin : 0, firsts[i + 1] - begin,
            lesser(firsts[i + 2] - begin, kTabledOutputs)};
  }

  // The weight of a pixel in one of the outputs that read it, without the mask.
  __device__ __forceinline__ T weight(int32_t output, const Outputs& reading) const {
    return output < reading.middle ? fractions[output] : T(1) - fractions[output];
  }
};

}  // namespace racnn
