// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of the windows (window_grad.cuh) where taps are runs of any length: the derivatives along y go
// into the rows' weights, those along x into the columns'.
#pragma once

#include "reduce.cuh"
#include "result_share.cuh"
#include "run_table.cuh"

namespace racnn {

constexpr int kGradLines = 3;

template <typename P>
struct RunGradTables {
  using T = typename P::T;
  static constexpr int32_t kRoom = kStaged<T> / 2;

  T staged[kGradLines * kRoom];
  Slot slots[kThreads];
  typename P::Axes axes;
  static constexpr int32_t kKept = sizeof(T) == 4 ? 8 : 2;
  RunTable<typename P::Axis, T, false, kMostRows, kKept, 3> rows;
  RunTable<typename P::Axis, T, false, kMostLanes, kKept, 3> columns;
  T scratch[kThreads / kWarp * kAxisSums];

  __device__ __forceinline__ void make(const P& p, int64_t crop, const Tile& tile) {
    if (threadIdx.x == 0) axes = crop_axes(p.taps, p.shape, crop);
    __syncthreads();
    make_tables(columns, rows, axes, tile);
  }
};

// Adds to the sums, in the order of Window, what a tile gives. A line may be staged in segments, and what
// those give adds up.
template <typename P>
__device__ __forceinline__ void add_run_tile(const P& p, const Place& place, const Tile& tile,
                                             typename P::T (&sums)[kAxisSums]) {
  using T = typename P::T;
  using Source = typename P::Source;
  using Tables = RunGradTables<P>;
  constexpr int32_t kCount = kUnit<Source>, kRoom = Tables::kRoom;
  Tables& tables = *shared_memory<Tables>();
  const int32_t channels = p.tiling.interleaved;
  tables.make(p, crop_at(p, place), tile);
  if (!tables.axes.finite || place.source < 0) return;
  ResultShare<P> mine(p, place, tile, p.tiling.slot_lanes);
  const Pass pass(tile, P::kPassSlots * mine.share.step);
  make_slots(p, pass, tables.slots);
  __syncthreads();
  const auto source = line_source<false>(p);
  const auto span = LineSpan<Source>::of(tables.columns.first, tables.columns.end, channels, kRoom, pass);
  const auto [begin, end, pitch] = span;
  const Run run = tables.columns.runs[mine.column];
  if (run.count == 0) mine.share.slot = PassShare::kNone;
  for (int32_t c = 0; c < tile.planes; c += pass.planes) {
    RACNN_NO_UNROLL
    for (int32_t i = 0; i < tile.rows; i += pass.rows) {
      const int32_t count = pass.slots_left(tile, i, c);
      const auto* const from = mine.result + mine.offset(p, i, c);
      std::remove_const_t<typename P::Result> grads[P::kPassSlots]{};
      mine.each(count, [&](int q) {
        const Slot slot = tables.slots[mine.slot(q)];
        if (tables.rows.runs[i + slot.row].count > 0) grads[q] = __ldg(from + slot.result);
      });
      T parts[P::kPassSlots][kAxisSums] = {};
      int32_t k = 0;
      for (int32_t segment = begin; segment < end; segment += pitch) {
        const PassShare makes = PassShare::of_units(span.units(segment), pass);
        const auto unit = source.unit(source_plane(p, place, tile.plane + c), segment + makes.lane * kCount);
        make_lines<kCount, kGradLines, kRoom>(makes, unit, tables.slots, count, pitch, tables.staged,
                                              [&](int32_t row, const auto& at, auto& values) {
                                                contract_rows<2>(tables.rows, tables.axes.y, tile.row,
                                                                 i + row, source, at, row_bytes(p), values);
                                              });
        __syncthreads();
        const T* const line = tables.staged + mine.share.slot * pitch + mine.channel - segment;
        for (; k < run.count; ++k) {
          const int32_t at = (run.first + k) * channels;
          if (at + mine.channel - segment >= pitch) break;
          const auto entry = tables.columns.entry(tables.axes.x, tile.column, mine.column, k);
          mine.each(count, [&](int q) {
            const T* const numbers = line + q * mine.share.step * pitch + at;
            parts[q][0] = std::fma(entry.values[1], numbers[0], parts[q][0]);
            parts[q][1] = std::fma(entry.values[2], numbers[0], parts[q][1]);
            parts[q][2] = std::fma(entry.values[0], numbers[kRoom], parts[q][2]);
            parts[q][3] = std::fma(entry.values[0], numbers[2 * kRoom], parts[q][3]);
          });
        }
        __syncthreads();
      }
      mine.each(count, [&](int q) {
        const T g = widen<T>(grads[q]);
        T scale = T(1), shift = T(0);
        if (p.affine.used) {
          const int32_t channel = mine.channel_in(p, pass, c, q);
          scale = p.affine.scale[channel];
          shift = p.affine.shift[channel];
        }
        const int32_t row = i + tables.slots[mine.slot(q)].row;
        RACNN_UNROLL
        for (int s = 0; s < kAxisSums; ++s) {
          const T weights =
              tables.columns.sums[s < 2 ? s + 1 : 0][mine.column] * tables.rows.sums[s < 2 ? 0 : s - 1][row];
          sums[s] = std::fma(g, std::fma(scale, parts[q][s], shift * weights), sums[s]);
        }
      });
    }
  }
}

}  // namespace racnn
