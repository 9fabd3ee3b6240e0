// SPDX-License-Identifier: BSD-3-Clause
//
// The forward pass and the gradient of the images are one contraction with two tables of weights,
//
//     result[c, i, j] = sum_y b_i(y) sum_x a_j(x) source[c, y, x]
//
// from images to crops with the weights of the outputs, and back, summed over the windows on an image, with
// those of the pixels (run_table.cuh). No atomics: each element of the result is written once.
//
// A block contracts the source along y on the way into shared memory, in lines (lines.cuh), and along x on
// the way out of it: a thread has one column of its tile, with the weights of two entries in registers, in
// kPassSlots slots at a time. From then on a pixel costs no floor, division or exp, whatever the filter, the
// mask and the boundary. Lines that do not fit into shared memory are taken in segments. Taps of two entries
// are runs too; in the forward pass, the most frequent case, they are a constant instead of a loop, and of a
// line that is read sparsely only the units are made that some column reads.
#pragma once

#include "affine.cuh"
#include "pairs.cuh"
#include "run_table.cuh"

namespace racnn {

template <typename Source_, typename Result_, typename Taps_, bool kInverse_>
struct ContractionParams {
  using Source = Source_;
  using Result = Result_;
  using Taps = Taps_;
  using T = Accumulate<Source>;
  using Axes = AxesOf<Taps>;
  using Axis = decltype(Axes::x);
  static constexpr bool kInverse = kInverse_;
  static constexpr bool kIsFilter = std::is_same_v<Axis, FilterAxis<T>>;
  static constexpr int kPassSlots =
      kIsFilter && kInverse && sizeof(Source) == 4 ? 8 : racnn::kPassSlots<Source>;
  static constexpr bool kTwoEntries = !kInverse && !kIsFilter;
  // Rows of a run whose loads are on the way together.
  static constexpr int kAhead = kIsFilter && sizeof(Source) == 4 ? 4 : 2;
  static constexpr bool kEachTogether = !kTwoEntries || sizeof(Source) < 4;  // as far as there are registers

  const Source* source;
  Result* result;
  CropShape shape;
  Strides source_strides, result_strides;
  Taps taps;
  AffineParams<T> affine;
  Tiling tiling{};
  TilingDivisors divisors{};
  int32_t result_planes = 0;
  uint32_t blocks = 0;  // tiles of all results
  bool words = false;   // every unit is one aligned word
  // Behind all else: in front of it, kernels take more registers. Two words that instructions read where they
  // are; what they follow from would take registers, too.
  ImageIndex index{};
  int32_t image_mask = -1;  // 0: windows are counted over all images
  int32_t one_window = 0;   // on each image, and no index

  RACNN_HOST_DEVICE int64_t results() const { return kInverse ? shape.batch : shape.batch * shape.windows; }
  RACNN_HOST_DEVICE int32_t height() const { return kInverse ? shape.height : shape.out_height; }
  RACNN_HOST_DEVICE int32_t width() const { return kInverse ? shape.width : shape.out_width; }
  RACNN_HOST_DEVICE int32_t source_width() const { return kInverse ? shape.out_width : shape.width; }
};

// Forward; backward the scale is all that matters. weights() is the sum of those of a value.
template <typename P, typename T, typename Weights>
__device__ __forceinline__ T normalise(const P& p, T value, int32_t channel, const Weights& weights) {
  value *= p.affine.scale[channel];
  if constexpr (!P::kInverse) value = std::fma(p.affine.shift[channel], weights(), value);
  if constexpr (!P::kInverse && !P::kTwoEntries) value += p.affine.offset[channel];
  return value;
}

// Stores value(q) in those of the thread's slots that are among the first `count` of a pass. `to` is the
// result at its first row and plane; weights(i) is the sum of the weights in its row i.
template <typename P, typename Value, typename Weights>
__device__ __forceinline__ void store(const P& p, const ResultShare<P>& mine, typename P::Result* to,
                                      const Slot* slots, int32_t count, const Pass& pass, int32_t c,
                                      Value value, const Weights& weights) {
  const Slot* of = slots + mine.share.slot;
  mine.each(count, [&, of](int q) mutable {
    typename P::T result = value(q);
    if (p.affine.used) {
      result = normalise(p, result, mine.channel_in(p, pass, c, q), [&] { return weights(of->row); });
    }
    to[of->result] = narrow<typename P::Result>(result);
    of += mine.share.step;
  });
}

template <typename T>
struct TwoEntryTables {
  T staged[2 * kStaged<T>];
  Slot slots[kThreads];
  RowPair<T> rows[kMostRows];
  ColumnPair<T> columns[kMostLanes];
};

template <bool kWords, typename P>
__device__ __forceinline__ void contract_two_entries(const P& p, const Place& place, const Tile& tile) {
  using T = typename P::T;
  using Source = typename P::Source;
  constexpr int32_t kCount = kUnit<Source>;
  auto& [staged, slots, rows, columns] = *shared_memory<TwoEntryTables<T>>();
  const int32_t channels = p.tiling.interleaved;
  {
    const auto axes = crop_axes(p.taps, p.shape, crop_at(p, place));
    const T nothing = axes.finite && place.source >= 0 ? T(0) : kNaN<T>;
    const int32_t i = threadIdx.x, from_the_end = kThreads - 1 - i;
    if (i < tile.columns) columns[i] = column_pair(axes.x, tile.column + i);
    if (from_the_end < tile.rows) {
      rows[from_the_end] = row_pair(axes.y, tile.row + from_the_end, row_bytes(p), nothing);
    }
  }
  __syncthreads();
  auto [line_of, mine, pass, makes, first, at, slot_step] = pair_work<kWords>(p, place, tile, columns, slots);
  const ColumnPair<T> pair = columns[mine.column];
  const auto row_step = int32_t(pass.rows * p.result_strides.y);
  auto* to = mine.result;
  __syncthreads();
  int32_t turn = 0;
  RACNN_NO_UNROLL
  for (int32_t c = 0; c < tile.planes; c += pass.planes) {
    int32_t i = 0;
    RACNN_NO_UNROLL
    for (; i < tile.rows; i += pass.rows) {
      const int32_t count = pass.slots_left(tile, i, c);
      make_lines<kCount>(makes, first, slots, count, line_of.pitch, staged + turn,
                         [&](int32_t row, const auto& unit, auto& values) {
                           const RowPair<T> pair = rows[i + row];
                           if (pair.lower < 0 || unit.mask == 0) {
                             RACNN_UNROLL
                             for (T& value : values[0].values) value = pair.lower < 0 ? pair.w_lower : T(0);
                             return;
                           }
                           const auto lower = line_of.source.load(unit, pair.lower),
                                      upper = line_of.source.load(unit, pair.upper);
                           RACNN_UNROLL
                           for (int k = 0; k < kCount; ++k) {
                             values[0].values[k] = std::fma(pair.w_upper, widen<T>(upper.values[k]),
                                                            pair.w_lower * widen<T>(lower.values[k]));
                           }
                         });
      __syncthreads();
      const T* lower = staged + turn + at;
      const T* upper = lower + channels;
      store(
          p, mine, to, slots, count, pass, c,
          [&, lower, upper](int) mutable {
            const T value = std::fma(pair.w_upper, *upper, pair.w_lower * *lower);
            lower += slot_step;
            upper += slot_step;
            return value;
          },
          [&](int32_t row) {
            return (pair.w_lower + pair.w_upper) * (rows[i + row].w_lower + rows[i + row].w_upper);
          });
      to += row_step;
      turn ^= kStaged<T>;
    }
    first.from += int32_t(pass.planes * channels * p.source_strides.c);
    to += int32_t(mine.offset(p, -i, pass.planes));
  }
}

// A block's shared memory: the tables of the crop at hand, and the windows that reach the tile.
template <typename P>
struct RunTables {
  using T = typename P::T;
  static constexpr bool kInverse = P::kInverse;

  T staged[2 * kStaged<T>];
  Slot slots[kThreads];
  typename P::Axes axes;
  RunTable<typename P::Axis, T, kInverse, kMostRows, kKeptOfRow<T>> rows;
  RunTable<typename P::Axis, T, kInverse, kMostLanes, kKeptOfColumn<T>> columns;
  bool reached;   // the crop reads the tile or, in the forward pass, is finite
  Run rows_read;  // by the crop, if the tile is not one pass
  Tile tile;
  int32_t list[kThreads];  // windows
  int32_t found, next;     // in the list
  int32_t searched;        // windows, for the list
  int32_t counts[kThreads / kWarp];

  // Returns `reached`: otherwise there are no tables. `known`: the crop was found by find_windows.
  __device__ __forceinline__ bool make(const P& p, int64_t crop, bool known) {
    __syncthreads();  // all are done with those before
    if (threadIdx.x == 0) {
      if (known) ++next;
      axes = crop_axes(p.taps, p.shape, crop);
      reached = known || (axes.finite && (!kInverse || reaches(axes)));
      if (kInverse && !known) rows_read = read_by_any(axes.y);
    }
    __syncthreads();
    if (!reached) return false;
    make_tables(columns, rows, axes, tile);
    return true;
  }

  __device__ __forceinline__ bool reaches(const typename P::Axes& axes) const {
    return meet(read_by_any(axes.x), tile.column, tile.columns) &&
           meet(read_by_any(axes.y), tile.row, tile.rows);
  }

  // The next window on an image that reaches the tile, -1 if none does. All three counts begin with 0; `make`
  // moves on.
  __device__ __forceinline__ int32_t next_window(const P& p, int32_t image) {
    while (next == found) {
      if (searched >= p.shape.windows) return -1;
      find_windows(p, image, searched);
    }
    return list[next];
  }

  // Lists those of the windows [from, from + kThreads) on an image that reach the tile, in order.
  __device__ __forceinline__ void find_windows(const P& p, int32_t image, int32_t from) {
    const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t window = int64_t(from) + threadIdx.x;
    bool reach = window < p.shape.windows;
    if (kHasWindows<typename P::Taps> && p.image_mask == 0 && reach) {
      reach = p.index.of_crop[window] == image;
    }
    if (reach) {
      const auto of = crop_axes(p.taps, p.shape, crop_at(p, {image, int32_t(window), 0}));
      reach = of.finite && reaches(of);
    }
    const unsigned votes = __ballot_sync(kAllLanes, reach);
    __syncthreads();  // all are done with the list before
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int32_t place = __popc(votes & ((1u << lane) - 1)), all = 0;
    for (int32_t w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) place += counts[w];
      all += counts[w];
    }
    if (reach) list[place] = from + int32_t(threadIdx.x);
    if (threadIdx.x == 0) {
      found = all;
      next = 0;
      searched = from + kThreads;
    }
    __syncthreads();
  }
};

template <typename P>
__device__ __forceinline__ void contract_runs(const P& p, const Place& place, const Tile& tile) {
  using T = typename P::T;
  using Source = typename P::Source;
  constexpr int32_t kCount = kUnit<Source>;
  RunTables<P>& tables = *shared_memory<RunTables<P>>();
  ResultShare<P> mine(p, place, tile, p.tiling.slot_lanes);
  const int32_t channels = p.tiling.interleaved;
  const Pass pass(tile, mine.share.step * P::kPassSlots);
  make_slots(p, pass, tables.slots);
  if (threadIdx.x == 0) {
    tables.tile = tile;
    tables.found = tables.next = tables.searched = 0;
  }
  __syncthreads();
  const auto source = line_source<false>(p);
  const auto plane_step = int32_t(pass.planes * channels * p.source_strides.c);
  // Several windows add up in the registers: then a tile is one pass (make_tiling).
  const bool one_window =
      !P::kInverse || (kHasWindows<typename P::Taps> ? p.one_window != 0 : p.shape.windows == 1);
  int32_t turn = 0;
  T sums[P::kPassSlots] = {};
  for (bool last = false; !last;) {
    const int32_t window = one_window ? place.window : tables.next_window(p, place.image);
    last = one_window || window < 0;
    const bool reads =
        window >= 0 && place.source >= 0 && tables.make(p, crop_at(p, {place.image, window, 0}), !one_window);
    const auto span = LineSpan<Source>::of(reads ? tables.columns.first : 0, reads ? tables.columns.end : 0,
                                           channels, kStaged<T>, pass);
    const Run run =
        reads && mine.share.slot != PassShare::kNone ? tables.columns.runs[mine.column] : Run{0, 0};
    PassShare makes(1, 0, 1);
    typename decltype(source)::Unit unit{};
    // The thread's unit in a segment.
    const auto choose = [&](int32_t segment, int32_t c) {
      makes = PassShare::of_units(span.units(segment), pass);
      unit = source.unit(source_plane(p, {place.image, window, place.source}, tables.tile.plane + c),
                         segment + makes.lane * kCount);
    };
    if (span.begin < span.end) choose(span.begin, 0);
    auto* to = mine.result;
    for (int32_t c = 0; c < tile.planes; c += pass.planes) {
      int32_t i = 0;
      RACNN_NO_UNROLL
      for (; i < tile.rows; i += pass.rows) {
        const int32_t count = pass.slots_left(tile, i, c);
        if (one_window) {
          for (T& sum : sums) sum = reads || P::kInverse ? T(0) : kNaN<T>;
        }
        const bool skips = P::kInverse && one_window && pass.planes == 1 && reads &&
                           !meet(tables.rows_read, tile.row + i, pass.rows);
        int32_t k = 0;
        for (int32_t segment = skips ? span.end : span.begin; segment < span.end; segment += span.pitch) {
          if (span.end - span.begin > span.pitch) choose(segment, c);
          make_lines<kCount>(makes, unit, tables.slots, count, span.pitch, tables.staged + turn,
                             [&](int32_t row, const auto& at, auto& values) {
                               contract_rows<P::kAhead>(tables.rows, tables.axes.y, tile.row, i + row, source,
                                                        at, row_bytes(p), values);
                             });
          __syncthreads();
          const T* const line = tables.staged + turn + mine.share.slot * span.pitch + mine.channel;
          for (; k < run.count; ++k) {
            const int32_t at = (run.first + k) * channels - segment;
            if (at + mine.channel >= span.pitch) break;
            const T weight =
                tables.columns.entry(tables.axes.x, tables.tile.column, mine.column, k).values[0];
            mine.each(count, [&](int q) {  // only of those is there a line, long ones fill the buffer
              sums[q] = std::fma(weight, line[q * mine.share.step * span.pitch + at], sums[q]);
            });
          }
          turn ^= kStaged<T>;
        }
        if (last) {
          store(
              p, mine, to, tables.slots, count, pass, c, [&](int q) { return sums[q]; },
              [&](int32_t row) {
                return tables.columns.sums[0][mine.column] * tables.rows.sums[0][i + row];
              });
        }
        to += int32_t(pass.rows * p.result_strides.y);
      }
      unit.from += plane_step;
      to += int32_t(mine.offset(p, -i, pass.planes));
    }
  }
}

template <bool kWords, typename P>
__global__ void __launch_bounds__(kThreads, std::min(kResidentBlocks<P, kWords>, kMostResidentBlocks))
    contraction_kernel(P p) {
  for (uint32_t number = blockIdx.x; number < p.blocks; number += gridDim.x) {
    const int32_t n = p.divisors.tiles.quotient(int32_t(number));
    const Tile tile = tile_at(p.tiling, p.divisors, int32_t(number) - n * p.tiling.tiles(), p.height(),
                              p.width(), p.result_planes);
    Place place{n, 0, 0};
    if constexpr (!P::kInverse) place = place_of(p, n);
    if constexpr (P::kTwoEntries) {
      contract_two_entries<kWords>(p, place, tile);
    } else {
      contract_runs(p, place, tile);
    }
    __syncthreads();
  }
}

template <bool kWords, typename P>
cudaError_t launch_contraction(P& p, int32_t channels, int64_t multiprocessors, cudaStream_t stream,
                               int64_t max_blocks) {
  using T = typename P::T;
  p.tiling = tile_results(p, p.height(), p.width(), p.results(), channels, multiprocessors,
                          kResidentBlocks<P, kWords>, P::kInverse && p.one_window == 0);
  using Shared = std::conditional_t<P::kTwoEntries, TwoEntryTables<T>, RunTables<P>>;
  static_assert(sizeof(Shared) <= 48 << 10, "what every GPU gives unasked");
  if (p.results() > kMaxBlocks / p.tiling.tiles()) return cudaErrorInvalidConfiguration;
  p.blocks = uint32_t(p.tiling.tiles() * p.results());
  const auto grid = unsigned(std::min<int64_t>(p.blocks, max_blocks));
  return launch(contraction_kernel<kWords, P>, dim3(grid), dim3(kThreads), sizeof(Shared), stream, p);
}

template <typename P>
cudaError_t launch_contraction(P p, const ImageIndex& index, int64_t multiprocessors, cudaStream_t stream,
                               int64_t max_blocks) {
  p.index = index;
  p.image_mask = index.of_crop == nullptr ? -1 : 0;
  p.one_window = index.of_crop == nullptr && p.shape.windows == 1;
  if (p.results() == 0 || p.shape.channels == 0) return cudaSuccess;
  if (!is_countable(p.shape)) return cudaErrorInvalidConfiguration;
  const int32_t channels =
      interleaved_channels(kUnit<typename P::Source>, p.shape.channels, greater(p.width(), p.source_width()),
                           p.source_strides, p.result_strides);
  p.words = in_words(p.source, p.source_width(), p.shape.channels, channels, p.source_strides);
  // Of the two entries' kernels there are two versions: there it pays.
  if constexpr (P::kTwoEntries) {
    if (p.words) return launch_contraction<true>(p, channels, multiprocessors, stream, max_blocks);
  }
  return launch_contraction<false>(p, channels, multiprocessors, stream, max_blocks);
}

}  // namespace racnn
