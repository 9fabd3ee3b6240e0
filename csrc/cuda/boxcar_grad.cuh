// SPDX-License-Identifier: BSD-3-Clause
//
// RA-CNN's surrogate gradient of the windows (boxcar_taps.h): with D = scale E / max E and, from the taps of
// column j and row i, X = inside, X' = edge_difference, X" = edge_sum and Y, Y', Y",
//
//     d tx = sum D X' Y,   d tw = sum D (shrink / 2 - X" Y),   d ty, d th alike,   d tl = d tw + d th.
//
// All are linear in the energy E, so one pass over g collects the sums of E and its maximum together; the
// division comes at the end. E is |g| of each channel with a maximum of its own, or the sum of g^2 over all
// channels.
//
// A crop is cut into parts, [rows] x [channels], a block each. A thread stays at its columns and channels and
// walks down the rows: an element costs four multiply-adds, with 1, Y, Y' and Y"; what depends on the column
// is multiplied at the end. A second kernel, a warp a window, combines the parts in a fixed order: two
// launches, no atomics.
#pragma once

#include <numeric>

#include "../boxcar_taps.h"
#include "../sizes.h"
#include "reduce.cuh"
#include "tiling.cuh"

namespace racnn {

// The sums of E and of E times the four products above, and the maximum of E.
enum BoxcarSum : int { kEnergy, kMoveX, kMoveY, kGrowX, kGrowY, kMaximum, kBoxcarSums };

constexpr int kResidentParts = 3;             // on a multiprocessor
constexpr int64_t kFewestElements = 1 << 11;  // of a part
constexpr int64_t kMostElements = 1 << 15;    // of a part, if the workspace has room
constexpr int32_t kMostTableRows = 256;

// How a crop is cut. Where a part has all rows it divides the sums by their maximum at once, and leaves their
// total over its group of channels; otherwise it leaves the sums of each channel.
struct BoxcarParts {
  int64_t maxima;  // of a crop: one a channel; kSquare: one
  int64_t group_channels;
  int32_t groups, part_rows, row_parts;

  RACNN_HOST_DEVICE int32_t count() const { return groups * row_parts; }
  // What a crop leaves: sums of [slots, channels].
  int32_t slots() const { return row_parts > 1 ? row_parts : groups; }
  int32_t channels() const { return row_parts > 1 ? int32_t(maxima) : 1; }
};

// About a wave of blocks on any GPU; at most h + w sums a crop, which bounds the workspace.
inline BoxcarParts make_boxcar_parts(const CropShape& shape, Energy energy) {
  const int64_t crops = std::max<int64_t>(1, shape.batch * shape.windows);
  const int64_t elements = shape.channels * shape.out_height * shape.out_width;
  const int64_t most = int64_t(shape.out_height) + shape.out_width;
  const int64_t wave = kResidentParts * kMultiprocessors / crops;
  const int64_t wanted =
      std::clamp<int64_t>(std::max(wave, elements / kMostElements), 1, elements / kFewestElements + 1);
  BoxcarParts parts{};
  parts.maxima = energy == Energy::kSquare ? 1 : std::max<int64_t>(1, shape.channels);
  const int64_t row_parts = std::clamp<int64_t>(most / parts.maxima, 1, wanted);
  parts.part_rows = int32_t(divide_up<int64_t>(shape.out_height, row_parts));
  parts.row_parts = divide_up(shape.out_height, parts.part_rows);
  const int64_t groups = std::min(std::min(wanted, most) / parts.row_parts, parts.maxima);
  // Words of four channels stay together.
  parts.group_channels = groups > 1 ? divide_up(shape.channels, 4 * groups) * 4 : shape.channels;
  parts.groups = int32_t(divide_up(shape.channels, std::max<int64_t>(1, parts.group_channels)));
  return parts;
}

inline int64_t boxcar_grad_workspace(const CropShape& shape, Energy energy) {
  const BoxcarParts parts = make_boxcar_parts(shape, energy);
  return checked_product("the workspace of the boxcar gradient",
                         {shape.batch, shape.windows, parts.slots(), parts.channels(), kBoxcarSums});
}

// What a block sees of a part at a time. Its places are [channels, row lanes, columns] or, if channels are
// fastest, [row lanes, columns, channels]; a thread has `vector` neighbouring ones, which it reads as a word.
struct BoxcarTile {
  bool channels_fastest;
  int32_t vector;
  int32_t channels;  // kSquare: that many lanes of a warp share the channels
  int32_t columns, row_lanes, table_rows;

  RACNN_HOST_DEVICE int32_t slots() const { return row_lanes * columns; }  // of a channel
  RACNN_HOST_DEVICE int32_t places() const { return slots() * channels; }
};

// Rows of a thread whose loads are in flight together.
constexpr int row_batch(int vector) { return vector == 1 ? 8 : 4; }

template <typename Grad>
struct BoxcarGradParams {
  BoxcarProblem<Grad> problem;
  BoxcarParts parts;
  BoxcarTile tile;
};

// The larger; NaN if one is.
template <typename T>
__device__ __forceinline__ T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <typename T>
__device__ __forceinline__ void add_sums(const T (&from)[kBoxcarSums], T (&sums)[kBoxcarSums]) {
  RACNN_UNROLL
  for (int s = 0; s < kMaximum; ++s) sums[s] += from[s];
  sums[kMaximum] = larger(sums[kMaximum], from[kMaximum]);
}

// Adds sums divided by their maximum, nothing if that is 0.
template <typename T>
__device__ __forceinline__ void add_normalised(const T (&sums)[kBoxcarSums], T (&total)[kBoxcarSums]) {
  if (sums[kMaximum] == T(0)) return;
  RACNN_UNROLL
  for (int s = 0; s < kMaximum; ++s) total[s] += sums[s] / sums[kMaximum];
}

// Sums in memory, and the steps from sum to sum, from channel to channel and from slot to slot.
template <typename T>
struct BoxcarSums {
  const T* first;
  int64_t sum, channel, slot;
};

// Combines the slots of each channel, by up to a warp of the `threads`; `use` gets a channel and its sums.
template <typename T, typename Use>
__device__ __forceinline__ void combine_slots(const BoxcarSums<T>& from, int32_t channels, int32_t slots,
                                              int32_t thread, int32_t threads, const Use& use) {
  int32_t bits = 5;
  while (bits > 0 && channels > threads >> bits) --bits;
  const int32_t lanes = 1 << bits, lane = thread & (lanes - 1);
  for (int32_t first = 0; first < channels; first += threads >> bits) {
    const int32_t channel = first + (thread >> bits);
    T sums[kBoxcarSums] = {}, more[kBoxcarSums];
    for (int32_t slot = lane; slot < slots && channel < channels; slot += lanes) {
      const T* const place = from.first + channel * from.channel + slot * from.slot;
      RACNN_UNROLL
      for (int s = 0; s < kBoxcarSums; ++s) more[s] = place[s * from.sum];
      add_sums(more, sums);
    }
    for (int32_t apart = lanes / 2; apart > 0; apart /= 2) {
      RACNN_UNROLL
      for (int s = 0; s < kBoxcarSums; ++s) more[s] = __shfl_xor_sync(kAllLanes, sums[s], apart);
      add_sums(more, sums);
    }
    if (lane == 0 && channel < channels) use(channel, sums);
  }
}

// 1, Y, Y' and Y" of a row, or zeros beyond the last one.
template <typename T>
struct alignas(16) RowFactors {
  T values[4];
};

// The sums of a place's energy times each factor, and its maximum.
template <typename T>
struct PlaceSums {
  T values[4] = {}, maximum = T(0);
};

// Adds up row, row + row_lanes, ... of `rows` rows; `grad` and `factors` are at the first of them. kSquare:
// as many lanes as tile.channels share the channels, of which `channels` are left from a lane's first on.
template <int kVector, bool kSquare, typename Grad, typename T>
__device__ __forceinline__ void add_rows(const BoxcarGradParams<Grad>& p, const Grad* grad, int64_t channels,
                                         int32_t row, int32_t rows, const RowFactors<T>* factors,
                                         PlaceSums<T> (&sums)[kVector]) {
  constexpr int kBatch = row_batch(kVector);
  const Strides& strides = p.problem.grad_strides;
  const int32_t lanes = kSquare ? p.tile.channels : 1, step = p.tile.row_lanes;
  for (int32_t begin = 0; begin < rows; begin += kBatch * step) {
    const Grad* from[kBatch];
    RACNN_UNROLL
    for (int n = 0; n < kBatch; ++n) {
      from[n] = grad;
      row += step;
      // Beyond the end the last row is read again: a branch around a load would wait for the load before it.
      if (row < rows) grad += step * strides.y;
    }
    T energy[kBatch][kVector] = {};
    RACNN_NO_UNROLL
    for (int64_t c = 0; kSquare ? c < channels : c < 1; c += lanes) {
      Pack<Grad, kVector> packs[kBatch];
      RACNN_UNROLL
      for (int n = 0; n < kBatch; ++n) packs[n] = load_pack<kVector>(from[n] + c * strides.c);
      RACNN_UNROLL
      for (int n = 0; n < kBatch * kVector; ++n) {
        const T g = widen<T>(packs[n / kVector].values[n % kVector]);
        energy[n / kVector][n % kVector] += kSquare ? g * g : std::abs(g);
      }
    }
    RACNN_UNROLL
    for (int n = 0; n < kBatch; ++n, factors += step) {
      const RowFactors<T> y = *factors;
      RACNN_UNROLL
      for (int v = 0; v < kVector; ++v) {
        T e = energy[n][v];
        if constexpr (kSquare) {
          for (int32_t apart = lanes / 2; apart > 0; apart /= 2) e += __shfl_xor_sync(kAllLanes, e, apart);
        }
        RACNN_UNROLL
        for (int f = 0; f < 4; ++f) sums[v].values[f] = std::fma(e, y.values[f], sums[v].values[f]);
        sums[v].maximum = std::fmax(e, sums[v].maximum);  // ignores NaN, which the sums have
      }
    }
  }
}

// One part of a crop, by a block, tile by tile.
template <int kVector, bool kSquare, typename Grad, typename T = Accumulate<Grad>>
__device__ __forceinline__ void boxcar_part(const BoxcarGradParams<Grad>& p, int64_t crop, int32_t part) {
  const auto& [problem, parts, tile] = p;
  const CropShape& shape = problem.shape;
  const Strides& strides = problem.grad_strides;
  const Window<T> window = load_window(problem.windows + crop * problem.values, problem.values);
  const int32_t row_part = uint32_t(part) / uint32_t(parts.groups), group = part - row_part * parts.groups;
  const int32_t row_begin = row_part * parts.part_rows;
  const int32_t row_end = lesser(row_begin + parts.part_rows, shape.out_height);
  int64_t channel = group * parts.group_channels;
  int64_t channels = lesser(parts.group_channels, shape.channels - channel);  // from there on

  // The thread's first place.
  const int32_t places = tile.places(), index = threadIdx.x * kVector;
  const bool exists = index < places;  // blocks are whole warps
  const uint32_t i = exists ? index : 0, tile_channels = tile.channels, slots = tile.slots();
  const int32_t place_channel = tile.channels_fastest ? i % tile_channels : i / slots;
  const uint32_t slot = tile.channels_fastest ? i / tile_channels : i % slots;
  const int32_t place_row = slot / uint32_t(tile.columns), place_column = slot - place_row * tile.columns;
  const Grad* grad = problem.grad_output + crop_offset(strides, crop, shape.windows) +
                     (channel + place_channel) * strides.c + place_column * strides.x;

  RowFactors<T>* const row_table = shared_memory<RowFactors<T>>();
  auto* const column_table = reinterpret_cast<BoxcarTap<T>*>(row_table + tile.table_rows);
  T* const place_sums = reinterpret_cast<T*>(column_table + tile.columns);  // [kBoxcarSums, places]
  const BoxcarSums<T> all_sums{place_sums, places, tile.channels_fastest ? 1 : tile.slots(),
                               tile.channels_fastest ? tile.channels : 1};
  int32_t tabled_row = -1, tabled_column = -1;
  T total[kBoxcarSums] = {};
  while (true) {
    for (int32_t column = 0; column < shape.out_width; column += tile.columns) {
      const bool reads = exists && place_column < shape.out_width - column && place_channel < channels;
      PlaceSums<T> sums[kVector];
      for (int32_t row = row_begin; row < row_end; row += tile.table_rows) {
        const int32_t rows = lesser(tile.table_rows, row_end - row);
        if (row != tabled_row || column != tabled_column) {
          __syncthreads();
          for (int32_t t = threadIdx.x; t < tile.table_rows + tile.columns; t += blockDim.x) {
            const int32_t r = t - tile.columns;  // first the columns, then the rows
            const BoxcarTap<T> tap =
                make_boxcar_tap(r < 0 ? window.half_x : window.half_y, problem.steepness,
                                r < 0 ? column + t : row + r, r < 0 ? shape.out_width : shape.out_height);
            if (r < 0) {
              column_table[t] = tap;
            } else {
              row_table[r] = r < rows ? RowFactors<T>{T(1), tap.inside, tap.edge_difference, tap.edge_sum}
                                      : RowFactors<T>{};
            }
          }
          __syncthreads();
          tabled_row = row;
          tabled_column = column;
        }
        if (!kSquare && !reads) continue;
        add_rows<kVector, kSquare>(
            p, grad + (row + lesser(place_row, rows - 1)) * strides.y + column * strides.x,
            reads ? channels - place_channel : 0, place_row, rows, row_table + place_row, sums);
      }
      RACNN_UNROLL
      for (int v = 0; v < kVector && exists; ++v) {
        const int32_t right = tile.channels_fastest ? uint32_t(place_channel + v) / tile_channels : v;
        const BoxcarTap<T> x = column_table[place_column + right];
        const T(&y)[4] = sums[v].values;
        const T result[kBoxcarSums] = {y[0],
                                       y[1] * x.edge_difference,
                                       y[2] * x.inside,
                                       y[1] * x.edge_sum,
                                       y[3] * x.inside,
                                       y[0] == y[0] ? sums[v].maximum : y[0]};
        RACNN_UNROLL
        for (int s = 0; s < kBoxcarSums; ++s) {
          T& sum = place_sums[s * places + index + v];
          sum = column == 0 ? result[s] : s == kMaximum ? larger(sum, result[s]) : sum + result[s];
        }
      }
    }
    __syncthreads();
    const int32_t sum_channels = kSquare ? 1 : int32_t(lesser<int64_t>(tile.channels, channels));
    combine_slots(all_sums, sum_channels, tile.slots(), threadIdx.x, blockDim.x,
                  [&](int32_t c, const T(&of_channel)[kBoxcarSums]) {
                    if (parts.row_parts == 1) return add_normalised(of_channel, total);
                    const int64_t n = (crop * parts.row_parts + row_part) * parts.maxima + channel + c;
                    T* const to = problem.workspace + n * kBoxcarSums;
                    RACNN_UNROLL
                    for (int s = 0; s < kBoxcarSums; ++s) to[s] = of_channel[s];
                  });
    __syncthreads();
    if (kSquare || channels <= tile.channels) break;
    channel += tile.channels;
    channels -= tile.channels;
    grad += tile.channels * strides.c;
  }
  if (parts.row_parts > 1) return;
  block_sum(total, place_sums);
  total[kMaximum] = T(1);  // normalised sums have it in common
  if (threadIdx.x == 0) {
    T* const place = problem.workspace + (crop * parts.groups + group) * kBoxcarSums;
    RACNN_UNROLL
    for (int s = 0; s < kBoxcarSums; ++s) place[s] = total[s];
  }
}

template <typename Grad, int kVector, bool kSquare>
__global__ void __launch_bounds__(kThreads, sizeof(Grad) == 8 ? 2 : kResidentParts)
    boxcar_grad_kernel(BoxcarGradParams<Grad> p) {
  const int64_t crops = p.problem.shape.batch * p.problem.shape.windows;
  for (int64_t crop = blockIdx.y; crop < crops; crop += gridDim.y) {
    for (int32_t part = blockIdx.x; part < p.parts.count(); part += gridDim.x) {
      boxcar_part<kVector, kSquare>(p, crop, part);
    }
  }
}

template <typename T>
struct FinishBoxcarGradParams {
  const T* workspace;  // [N, slots, channels, kBoxcarSums]
  T* grad_windows;     // [N, values]
  const T* windows;    // [N, values]
  int64_t crops;
  int32_t values, slots, channels;
  T scale, shrink;
};

// A warp combines the parts of a window.
template <typename T>
__global__ void finish_boxcar_grad_kernel(FinishBoxcarGradParams<T> p) {
  const int64_t warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t n = blockIdx.x * warps + threadIdx.x / kWarp; n < p.crops; n += gridDim.x * warps) {
    const Window<T> window = load_window(p.windows + n * p.values, p.values);
    const BoxcarSums<T> sums{p.workspace + n * p.slots * p.channels * kBoxcarSums, 1, kBoxcarSums,
                             int64_t(p.channels) * kBoxcarSums};
    T total[kBoxcarSums] = {};
    combine_slots(sums, p.channels, p.slots, lane, kWarp,
                  [&](int32_t, const T(&of_channel)[kBoxcarSums]) { add_normalised(of_channel, total); });
    warp_sum(total);
    if (lane == 0) {
      const T shrink = T(0.5) * p.shrink * total[kEnergy];
      const T axes[kAxisSums] = {p.scale * total[kMoveX], p.scale * (shrink - total[kGrowX]),
                                 p.scale * total[kMoveY], p.scale * (shrink - total[kGrowY])};
      store_window_grad(window, axes, p.values, p.grad_windows + n * p.values);
    }
  }
}

template <int kWide, typename Grad>
BoxcarTile make_boxcar_tile(const BoxcarProblem<Grad>& p, const BoxcarParts& parts) {
  const Strides& s = p.grad_strides;
  const int64_t w = p.shape.out_width;
  int64_t channels = parts.group_channels;
  BoxcarTile tile{};
  tile.channels_fastest = p.shape.channels > 1 && s.c < s.x;
  if (p.energy == Energy::kSquare) {
    // Lanes share the channels where these are neighbours, or where there are too few pixels for a block.
    const int64_t threads = w * divide_up(parts.part_rows, row_batch(1));
    const int64_t most = tile.channels_fastest ? kWarp : std::min<int64_t>(8, kThreads / threads);
    for (channels = 1; 2 * channels <= std::min(most, p.shape.channels);) channels *= 2;
    tile.channels_fastest = channels > 1;
  }
  // Words lie along the columns or along the channels; over the columns' borders if a row is one piece.
  const bool one_piece =
      tile.channels_fastest && channels == p.shape.channels && channels == s.x && channels <= kThreads;
  const bool packed =
      !tile.channels_fastest ? s.x == 1 && can_pack<kWide>(p.grad_output, w, {s.b, s.k, s.c, s.y})
      : one_piece ? s.c == 1 && can_pack<kWide>(p.grad_output, channels * w, {s.b, s.k, s.y})
                  : s.c == 1 && can_pack<kWide>(p.grad_output, std::gcd(channels, p.shape.channels),
                                                {s.b, s.k, s.y, s.x});
  tile.vector = packed && p.energy == Energy::kAbs ? kWide : 1;
  const int32_t places = kThreads * tile.vector;
  if (tile.channels_fastest) {
    tile.channels = one_piece ? int32_t(channels)
                              : tile.vector * int32_t(balanced<int64_t>(channels / tile.vector, kThreads));
    tile.columns = int32_t(std::min<int64_t>(w, places / tile.channels));
    if (one_piece && tile.columns < w) tile.columns -= tile.columns % tile.vector;
  } else {
    tile.columns = tile.vector * int32_t(balanced<int64_t>(w / tile.vector, kThreads));
    tile.channels = int32_t(balanced<int64_t>(channels, places / tile.columns));
  }
  const int32_t batch = row_batch(tile.vector), batches = divide_up(parts.part_rows, batch);
  tile.row_lanes = std::min({places / (tile.channels * tile.columns), batches, kMostTableRows / batch});
  const int32_t step = tile.row_lanes * batch;
  tile.table_rows = step * std::min(divide_up(parts.part_rows, step), kMostTableRows / step);
  return tile;
}

template <typename Grad>
cudaError_t compute(const BoxcarProblem<Grad>& p, cudaStream_t stream, int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Grad>;
  constexpr int kWide = sizeof(Grad) == 8 ? 2 : 4;
  const int64_t crops = p.shape.batch * p.shape.windows;
  if (crops == 0) return cudaSuccess;
  const BoxcarParts parts = make_boxcar_parts(p.shape, p.energy);
  if (parts.count() > 0) {
    const BoxcarTile tile = make_boxcar_tile<kWide>(p, parts);
    const int64_t blocks = std::min<int64_t>(parts.count(), max_blocks);
    const dim3 grid(unsigned(blocks),
                    unsigned(std::clamp<int64_t>(max_blocks / blocks, 1, std::min<int64_t>(crops, 65535))));
    const dim3 threads(divide_up(tile.places(), tile.vector * kWarp) * kWarp);
    const auto kernel = p.energy == Energy::kSquare ? boxcar_grad_kernel<Grad, 1, true>
                        : tile.vector == 1          ? boxcar_grad_kernel<Grad, 1, false>
                                                    : boxcar_grad_kernel<Grad, kWide, false>;
    const size_t shared_bytes = tile.table_rows * sizeof(RowFactors<T>) +
                                tile.columns * sizeof(BoxcarTap<T>) + tile.places() * kBoxcarSums * sizeof(T);
    const cudaError_t error =
        launch(kernel, grid, threads, shared_bytes, stream, BoxcarGradParams<Grad>{p, parts, tile});
    if (error != cudaSuccess) return error;
  }
  const FinishBoxcarGradParams<T> params{p.workspace,   p.grad_windows,   p.windows, crops,   p.values,
                                         parts.slots(), parts.channels(), p.scale,   p.shrink};
  const int64_t blocks = divide_up<int64_t>(crops, kFinishThreads / kWarp);
  return launch(finish_boxcar_grad_kernel<T>, dim3(unsigned(std::min(blocks, max_blocks))),
                dim3(kFinishThreads), 0, stream, params);
}

}  // namespace racnn
