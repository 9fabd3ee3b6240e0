// SPDX-License-Identifier: BSD-3-Clause
//
// Which part of a tile's result is a thread's.
#pragma once

#include "lines.cuh"

namespace racnn {

// A thread's column of the result with one of its channels, in kPassSlots slots of each pass.
template <typename P>
struct ResultShare {
  PassShare share;
  int32_t column, channel;     // in the tile; of the interleaved ones
  int32_t first_channel;       // of all, in the tile's first plane
  typename P::Result* result;  // in the tile's first row and plane

  __device__ __forceinline__ ResultShare(const P& p, const Place& at, const Tile& tile, int32_t slot_lanes)
      : share(p.tiling.lanes(), p.divisors.lanes.quotient(threadIdx.x), slot_lanes),
        column(p.divisors.interleaved.quotient(share.lane)),
        channel(share.lane - column * p.tiling.interleaved),
        first_channel(tile.plane * p.tiling.interleaved + channel),
        result(p.result + at.image * p.result_strides.b + at.window * p.result_strides.k +
               (tile.column + column) * p.result_strides.x + offset(p, tile.row, tile.plane) +
               channel * p.result_strides.c) {
    if (column < tile.columns) return;
    column = 0;
    share.slot = PassShare::kNone;
  }

  __device__ __forceinline__ static int64_t offset(const P& p, int32_t row, int32_t plane) {
    return row * p.result_strides.y + plane * (p.tiling.interleaved * p.result_strides.c);
  }

  __device__ __forceinline__ int32_t slot(int q) const { return share.slot + q * share.step; }

  // Of slot q of the pass from plane c on.
  __device__ __forceinline__ int32_t channel_in(const P& p, const Pass& pass, int32_t c, int q) const {
    return first_channel + (c + quotient(slot(q), pass.rows)) * p.tiling.interleaved;
  }

  // Calls use(q) for those slots that are among the first `count` of the pass.
  template <typename Use>
  __device__ __forceinline__ void each(int32_t count, Use use) const {
    const int32_t left = count - share.slot;
    if (P::kEachTogether && (P::kPassSlots - 1) * share.step < left) {  // no branches that keep loads apart
      RACNN_UNROLL
      for (int q = 0; q < P::kPassSlots; ++q) use(q);
      return;
    }
    RACNN_UNROLL
    for (int q = 0; q < P::kPassSlots; ++q) {
      if (q * share.step >= left) break;
      use(q);
    }
  }
};

// The tiling of `results`, and what follows from it.
template <typename P>
Tiling tile_results(P& p, int32_t height, int32_t width, int64_t results, int32_t channels,
                    int64_t multiprocessors, int64_t resident, bool one_pass) {
  const int32_t planes = int32_t(p.shape.channels / channels);
  const Tiling tiling =
      make_tiling({height, width, planes, results, channels, P::kPassSlots, multiprocessors, resident,
                   most_within(p.result_strides.y),
                   most_within(channels * std::max(p.source_strides.c, p.result_strides.c)), one_pass});
  p.divisors = TilingDivisors(tiling, p.shape.windows);
  p.result_planes = planes;
  return tiling;
}

}  // namespace racnn
