// SPDX-License-Identifier: BSD-3-Clause
//
// The exact gradient of the windows: with the crop's taps a_j(x), b_i(y) and their derivatives,
//
//     d tx = sum_{c,i,j} g[c, i, j] sum_y sum_x b_i(y) da_j(x)/dtx I[c, y, x]
//
// and likewise ty, tw, th; d tl = d tw + d th. From the source rows of a slot three lines are made
// (lines.cuh), by the weights b and by their derivatives with respect to the window's centre and half side
// along y; a thread multiplies what its column makes of them by g.
//
// With two entries the derivatives' weighted sums nearly cancel, so differences are taken pixel by pixel: of
// two weights' derivatives only their sum, the *level*, and the upper one, the *step*, matter, since
// da_lower v0 + da_upper v1 = da_upper (v1 - v0) + (da_lower + da_upper) v0. Along x neither depends on rows
// or planes, so a thread adds up g (v1 - v0) and g v0 for its column and multiplies at the end. Along y,
// without a mask, both derivatives are multiples of v1 - v0, how far the row moves: then two lines do.
//
// Grid: a block is one part of one window and takes every parts-th tile of it, one at least; it reduces four
// numbers by warp shuffles and writes them to its place in the workspace. A second kernel, a warp a window,
// adds up the parts. No atomics: the order is fixed.
#pragma once

#include "../sizes.h"
#include "affine.cuh"
#include "pairs.cuh"
#include "run_window_grad.cuh"

namespace racnn {

template <typename Image, typename Grad, typename Taps_>
struct WindowGradParams {
  using Source = Image;
  using Result = const Grad;
  using Taps = Taps_;
  using T = Accumulate<Image>;
  using Axes = AxesOf<Taps>;
  using Axis = decltype(Axes::x);
  static constexpr bool kInverse = false;
  static constexpr bool kIsFilter = std::is_same_v<Axis, FilterAxis<T>>;
  static constexpr bool kTwoEntries = !kIsFilter;
  static constexpr int kPassSlots = 4;
  static constexpr bool kEachTogether = true;

  const Image* source;
  const Grad* result;  // g
  CropShape shape;
  Strides source_strides, result_strides;
  Taps taps;
  AffineParams<T> affine;
  Window<T>* workspace;  // [parts, N]
  Tiling tiling{};
  TilingDivisors divisors{};
  Divisor parts{};  // of a window
  int32_t result_planes = 0;
  uint32_t blocks = 0;  // parts of all windows
  bool words = false;   // every unit is one aligned word
  ImageIndex index{};   // behind all else: in front of it, kernels take more registers

  RACNN_HOST_DEVICE int32_t source_width() const { return shape.width; }
};

template <typename T>
struct TapSlope {
  T centre_step, centre_level;  // d upper weight, d (lower + upper weight), with respect to the centre
  T half_step, half_level;      // with respect to the half side
};

template <typename T>
RACNN_HOST_DEVICE TapSlope<T> make_tap_slope(const Axis<T>& axis, int32_t j) {
  const TapGrad<T> d = make_tap_grad(axis, j);
  return {d.centre_upper, d.centre_lower + d.centre_upper, d.half_upper, d.half_lower + d.half_upper};
}

// Where there is no mask, the derivatives of a row's weights are -moved and moved.
template <typename T>
struct RowPairSlope : RowPair<T> {
  TapSlope<T> slope;
  AxisGrad<T> moved;
  T has_lower, has_upper;  // 1 or 0
};

template <typename T>
RACNN_HOST_DEVICE RowPairSlope<T> row_pair_slope(const Axis<T>& axis, int32_t i, int64_t row_bytes) {
  const Tap<T> tap = make_tap(axis, i);
  const RowPair<T> pair = row_pair(axis, i, row_bytes, T(0));
  return {pair, make_tap_slope(axis, i), position_grad(axis, i), tap.lower == kOutside ? T(0) : T(1),
          tap.upper == kOutside ? T(0) : T(1)};
}

template <typename T>
struct ColumnPairSlope : ColumnPair<T> {
  TapSlope<T> slope;
};

// Resident on a multiprocessor: larger units in more lines take more registers. kLines: 2 without a mask; 0:
// runs of any length.
template <typename Source, int kLines>
constexpr int kGradBlocks = sizeof(Source) == 8   ? 1 + (kLines > 0)
                            : sizeof(Source) == 4 ? 2 + (kLines > 0) + (kLines == 2)
                                                  : 1 + (kLines > 0) + (kLines == 2);

template <typename T, int kLines>
struct PairGradTables {
  T staged[kLines * kStaged<T>];
  Slot slots[kThreads];
  RowPairSlope<T> rows[kMostRows];
  ColumnPairSlope<T> columns[kMostLanes];
  T scratch[kThreads / kWarp * kAxisSums];
  bool finite;
};

// Adds to the sums, in the order of Window, what a tile gives.
template <bool kWords, int kLines, typename P>
__device__ __forceinline__ void add_pair_tile(const P& p, const Place& place, const Tile& tile,
                                              typename P::T (&sums)[kAxisSums]) {
  using T = typename P::T;
  using Source = typename P::Source;
  constexpr int32_t kCount = kUnit<Source>;
  auto& [staged, slots, rows, columns, scratch, finite] = *shared_memory<PairGradTables<T, kLines>>();
  const int32_t channels = p.tiling.interleaved;
  {
    const auto axes = crop_axes(p.taps, p.shape, crop_at(p, place));
    const int32_t i = threadIdx.x, r = kThreads - 1 - i;
    if (i < tile.columns) {
      columns[i] = {column_pair(axes.x, tile.column + i), make_tap_slope(axes.x, tile.column + i)};
    }
    if (r < tile.rows) rows[r] = row_pair_slope(axes.y, tile.row + r, row_bytes(p));
    if (i == 0) finite = axes.finite && place.source >= 0;
  }
  __syncthreads();
  if (!finite) return;
  auto [line_of, mine, pass, makes, first, at, slot_step] = pair_work<kWords>(p, place, tile, columns, slots);
  const T w_lower = columns[mine.column].w_lower, w_upper = columns[mine.column].w_upper;
  const int32_t pixel = columns[mine.column].pixel;
  if (pixel < -1 || pixel >= p.shape.width) mine.share.slot = PassShare::kNone;  // reads nothing
  T step = T(0), level = T(0);
  const auto* from = mine.result;
  __syncthreads();
  RACNN_NO_UNROLL
  for (int32_t c = 0; c < tile.planes; c += pass.planes) {
    int32_t i = 0;
    RACNN_NO_UNROLL
    for (; i < tile.rows; i += pass.rows) {
      const int32_t count = pass.slots_left(tile, i, c);
      // Early, and used late: the loads are on the way while the lines are made.
      std::remove_const_t<typename P::Result> grads[P::kPassSlots]{};
      mine.each(count, [&](int q) { grads[q] = __ldg(from + slots[mine.slot(q)].result); });
      make_lines<kCount, kLines, kStaged<T>>(
          makes, first, slots, count, line_of.pitch, staged,
          [&](int32_t row, const auto& unit, auto& values) {
            const RowPairSlope<T>& pair = rows[i + row];
            if (pair.lower < 0 || unit.mask == 0) return;
            const auto lower = line_of.source.load(unit, pair.lower),
                       upper = line_of.source.load(unit, pair.upper);
            RACNN_UNROLL
            for (int k = 0; k < kCount; ++k) {
              const T v0 = widen<T>(lower.values[k]), v1 = widen<T>(upper.values[k]);
              values[0].values[k] = std::fma(pair.w_upper, v1, pair.w_lower * v0);
              if constexpr (kLines == 2) {
                values[1].values[k] = std::fma(pair.has_upper, v1, -pair.has_lower * v0);
              } else {
                values[1].values[k] = std::fma(pair.slope.centre_step, v1 - v0, pair.slope.centre_level * v0);
                values[2].values[k] = std::fma(pair.slope.half_step, v1 - v0, pair.slope.half_level * v0);
              }
            }
          });
      __syncthreads();
      const T* line = staged + at;
      mine.each(count, [&](int q) {
        const RowPairSlope<T>& row = rows[i + slots[mine.slot(q)].row];
        T g = row.has_lower + row.has_upper == T(0) ? T(0) : widen<T>(grads[q]);
        if (p.affine.used) {
          const int32_t channel = mine.channel_in(p, pass, c, q);
          const T shifted = g * p.affine.shift[channel];
          level = std::fma(shifted, row.w_lower + row.w_upper, level);
          sums[2] = std::fma(shifted, (w_lower + w_upper) * row.slope.centre_level, sums[2]);
          sums[3] = std::fma(shifted, (w_lower + w_upper) * row.slope.half_level, sums[3]);
          g *= p.affine.scale[channel];
        }
        step = std::fma(g, line[channels] - line[0], step);
        level = std::fma(g, line[0], level);
        const auto blend = [&](const T* of) { return g * std::fma(w_upper, of[channels], w_lower * of[0]); };
        const T first = blend(line + kStaged<T>);
        if constexpr (kLines == 2) {
          sums[2] = std::fma(row.moved.centre, first, sums[2]);
          sums[3] = std::fma(row.moved.half, first, sums[3]);
        } else {
          sums[2] += first;
          sums[3] += blend(line + 2 * kStaged<T>);
        }
        line += slot_step;
      });
      __syncthreads();
      from += int32_t(pass.rows * p.result_strides.y);
    }
    first.from += int32_t(pass.planes * channels * p.source_strides.c);
    from += int32_t(mine.offset(p, -i, pass.planes));
  }
  const TapSlope<T> slope = columns[mine.column].slope;
  sums[0] += std::fma(slope.centre_level, level, slope.centre_step * step);
  sums[1] += std::fma(slope.half_level, level, slope.half_step * step);
}

template <typename P, int kLines>
using GradTables = std::conditional_t<kLines == 0, RunGradTables<P>, PairGradTables<typename P::T, kLines>>;

template <bool kWords, int kLines, typename P>
__global__ void __launch_bounds__(kThreads,
                                  kGradBlocks<typename P::Source, kLines> -
                                      (kFewerRegisters && sizeof(typename P::Source) < 4 && kLines == 2))
    window_grad_kernel(P p) {
  using T = typename P::T;
  const int64_t crops = p.shape.batch * p.shape.windows;
  for (uint32_t number = blockIdx.x; number < p.blocks; number += gridDim.x) {
    const int32_t n = p.parts.quotient(int32_t(number)), part = int32_t(number - n * p.parts.by);
    const Place place = place_of(p, n);
    T sums[kAxisSums] = {};
    for (int32_t t = part; t < p.tiling.tiles(); t += int32_t(p.parts.by)) {
      const Tile tile =
          tile_at(p.tiling, p.divisors, t, p.shape.out_height, p.shape.out_width, p.result_planes);
      if constexpr (kLines == 0) {
        add_run_tile(p, place, tile, sums);
      } else {
        add_pair_tile<kWords, kLines>(p, place, tile, sums);
      }
      __syncthreads();
    }
    block_sum(sums, shared_memory<GradTables<P, kLines>>()->scratch);
    if (threadIdx.x == 0) p.workspace[part * crops + n] = {sums[0], sums[1], sums[2], sums[3]};
  }
}

template <typename T>
struct FinishWindowGradParams {
  const Window<T>* workspace;  // [parts, N]
  T* grad_windows;             // [N, values]
  WindowSpec<T> windows;
  ImageIndex index;
  int64_t crops, parts;
};

// A warp adds up the parts of a window.
template <typename T>
__global__ void finish_window_grad_kernel(FinishWindowGradParams<T> p) {
  const int64_t warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t n = blockIdx.x * warps + threadIdx.x / kWarp; n < p.crops; n += gridDim.x * warps) {
    T sums[kAxisSums] = {};
    for (int64_t i = lane; i < p.parts; i += kWarp) {
      const Window<T> part = p.workspace[i * p.crops + n];
      sums[0] += part.x;
      sums[1] += part.half_x;
      sums[2] += part.y;
      sums[3] += part.half_y;
    }
    warp_sum(sums);
    if (lane == 0) {
      const bool exists = p.index.of_crop == nullptr || p.index.image_of(n) != kOutside;
      const Window<T> window = exists ? load_window(p.windows, n) : Window<T>{};
      store_window_grad(window, sums, p.windows.values, p.grad_windows + n * p.windows.values);
    }
  }
}

constexpr int64_t kTargetBlocks = 1024;  // on any GPU

// The most parts of a window: enough for kTargetBlocks blocks and as many again, so that tiles need not share
// one; at most h + w.
inline int64_t window_grad_parts(const CropShape& shape) {
  const int64_t crops = std::max<int64_t>(1, shape.batch * shape.windows);
  return std::min<int64_t>(divide_up(2 * kTargetBlocks, crops), int64_t(shape.out_height) + shape.out_width);
}

// In windows.
inline int64_t window_grad_workspace(const CropShape& shape) {
  return checked_product("the workspace of the window gradient",
                         {shape.batch, shape.windows, window_grad_parts(shape)});
}

// With no more parts than there are tiles, so that no block is idle; returns their number in p.parts.
template <bool kWords, int kLines, typename P>
cudaError_t launch_window_grad(P& p, int32_t channels, cudaStream_t stream, int64_t max_blocks) {
  static_assert(sizeof(GradTables<P, kLines>) <= 48 << 10, "what every GPU gives unasked");
  const int64_t crops = p.shape.batch * p.shape.windows;
  p.tiling = tile_results(p, p.shape.out_height, p.shape.out_width, crops, channels, kMultiprocessors,
                          kGradBlocks<typename P::Source, kLines>, false);
  p.parts = Divisor(std::min<int64_t>(window_grad_parts(p.shape), p.tiling.tiles()));
  if (crops > kMaxBlocks / p.parts.by) return cudaErrorInvalidConfiguration;
  p.blocks = uint32_t(crops * p.parts.by);
  return launch(window_grad_kernel<kWords, kLines, P>,
                dim3(unsigned(std::min<int64_t>(p.blocks, max_blocks))), dim3(kThreads),
                sizeof(GradTables<P, kLines>), stream, p);
}

// Whether any weight depends on where the window lies.
template <typename T>
bool moves_weights(const WindowSpec<T>&) {
  return true;
}

template <typename T>
bool moves_weights(const FilterSpec<T>& taps) {
  return taps.interpolation != Interpolation::kNearest || taps.steepness > T(0);
}

// Two launches.
template <typename Image, typename Grad, typename Taps>
cudaError_t compute(const WindowGradProblem<Image, Grad, Taps>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Image>;
  using P = WindowGradParams<Image, Grad, Taps>;
  const int64_t crops = p.shape.batch * p.shape.windows;
  if (crops == 0) return cudaSuccess;
  if (!is_countable(p.shape)) return cudaErrorInvalidConfiguration;
  int64_t parts = 0;
  if (p.shape.channels > 0 && moves_weights(p.taps)) {
    P params{p.images,
             p.grad_output,
             p.shape,
             p.image_strides,
             p.grad_strides,
             p.taps,
             AffineParams<T>(p.affine, p.shape.channels),
             p.workspace};
    params.index = p.index;
    const int32_t channels =
        interleaved_channels(kUnit<Image>, p.shape.channels, p.shape.width, p.image_strides, p.grad_strides);
    params.words = in_words(p.images, p.shape.width, p.shape.channels, channels, p.image_strides);
    cudaError_t error;
    const auto run = [&]<bool kWords, int kLines>() {
      error = launch_window_grad<kWords, kLines>(params, channels, stream, max_blocks);
    };
    if constexpr (!P::kTwoEntries) {
      run.template operator()<false, 0>();
    } else if (!params.words) {
      run.template operator()<false, 3>();
    } else if (p.taps.steepness > T(0)) {
      run.template operator()<true, 3>();
    } else {
      run.template operator()<true, 2>();
    }
    if (error != cudaSuccess) return error;
    parts = params.parts.by;
  }
  const int64_t blocks = divide_up<int64_t>(crops, kFinishThreads / kWarp);
  return launch(finish_window_grad_kernel<T>, dim3(unsigned(std::min(blocks, max_blocks))),
                dim3(kFinishThreads), 0, stream,
                FinishWindowGradParams<T>{p.workspace, p.grad_windows, p.taps, p.index, crops, parts});
}

}  // namespace racnn
