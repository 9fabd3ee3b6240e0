// SPDX-License-Identifier: BSD-3-Clause
//
// Which outputs read a given pixel, along one axis: the tap tables the other way round.
//
// Positions p_j do not decrease with j and output j reads pixel x with weight 1 - |p_j - x| where that is not
// negative. So the outputs that read x are those from the first p_j >= x - 1 up to, not including, the first
// p_j >= x + 1; a table of `first p_j >= x` over the pixels of a tile gives both. The weights follow from a
// table of positions, to the bit those of make_tap: all come from sample_position. Pixels are compared as
// integers and positions are counted from the tile, so that neither is rounded in a large image.
#pragma once

#include "taps.cuh"

namespace racnn {

constexpr int kTabledPositions = 512;  // per axis; the outputs of a stronger zoom are taken in several rounds

// The first j with p_j >= bound. A guess from the formula, checked, leaves a bisection of about one step;
// where it is off (clamped or coinciding positions) the bisection is longer, and right.
template <typename T>
RACNN_HOST_DEVICE int32_t first_output_at(const Axis<T>& axis, int32_t bound) {
  int32_t low = 0, high = axis.out;  // p[low - 1] < bound <= p[high]
  const T u = (T(bound) + T(0.5) - axis.centre) / axis.half;
  const T guess = clamp_to(T(0.5) * (u + T(1)) * T(axis.out), T(0), T(axis.out));  // NaN becomes 0
  const int32_t before = int32_t(guess) - 2, after = int32_t(guess) + 1;
  if (before >= 0 && sample_position(axis, before).pixel < bound) low = before + 1;
  if (after < axis.out && sample_position(axis, after).pixel >= bound) high = after;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (sample_position(axis, middle).pixel < bound) {
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

// The outputs [begin, end) along an axis.
struct Outputs {
  int32_t begin, end;
};

// The tables of one axis, in shared memory, for the pixels [begin, begin + count) of a tile and a round of
// outputs.
template <typename T>
struct InverseTaps {
  T* positions;     // [kTabledPositions], of the round, from the tile's first pixel on
  T* masks;         // [count]
  int32_t* firsts;  // [count + 2]: the first output at or beyond pixel begin - 1, begin, ..., begin + count

  static RACNN_HOST_DEVICE size_t bytes(int32_t count) {
    const size_t size = (kTabledPositions + count) * sizeof(T) + (count + 2) * sizeof(int32_t);
    return (size + 15) / 16 * 16;
  }

  __device__ __forceinline__ InverseTaps(unsigned char* memory, int32_t count)
      : positions(reinterpret_cast<T*>(memory)),
        masks(positions + kTabledPositions),
        firsts(reinterpret_cast<int32_t*>(masks + count)) {}

  // By all threads of the block, the second after a barrier.
  __device__ __forceinline__ void make_firsts(const Axis<T>& axis, int32_t begin, int32_t count) const {
    for (int32_t i = threadIdx.x; i < count + 2; i += blockDim.x) {
      firsts[i] = first_output_at(axis, begin + i - 1);
      if (i < count) masks[i] = axis.steepness > T(0) ? mask_value(axis, begin + i) : T(1);
    }
  }
  __device__ __forceinline__ void make_positions(const Axis<T>& axis, int32_t first_pixel, int32_t begin,
                                                 int32_t end) const {
    for (int32_t j = begin + int32_t(threadIdx.x); j < end; j += blockDim.x) {
      const Position<T> p = sample_position(axis, j);
      positions[j - begin] = T(p.pixel - first_pixel) + p.beyond;
    }
  }

  // The outputs of the round from `begin` on that read pixel i of the tile, counted from `begin`.
  __device__ __forceinline__ Outputs reading(int32_t i, int32_t begin) const {
    return {firsts[i] > begin ? firsts[i] - begin : 0, lesser(firsts[i + 2] - begin, kTabledPositions)};
  }

  // The weight of pixel x of the tile in the output, without the mask.
  __device__ __forceinline__ T weight(int32_t output, T x) const {
    return T(1) - std::abs(positions[output] - x);
  }
};

}  // namespace racnn
