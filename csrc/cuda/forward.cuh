// SPDX-License-Identifier: BSD-3-Clause
//
// The forward pass, out[n, c, i, j] = sum_y sum_x b_i(y) a_j(x) images[b, c, y, x].
//
// Grid: a block takes tiles of the crops (tiling.cuh), one after another. The block computes the row taps of
// the tile into shared memory, each thread the taps of its own columns into registers; from then on a pixel
// costs no floor, division or exp, whatever the mask and the boundary. A thread issues all loads of a strip
// before it uses the first, about 10 of them, then interpolates each source row horizontally once and keeps
// it for the output rows that share it. Neighbouring lanes read and write neighbouring addresses in either
// memory format.
#pragma once

#include "affine.cuh"
#include "taps.cuh"

namespace racnn {

// Outputs of 2 bytes and 1 byte get two neighbouring columns, to be stored as one word.
template <typename Out, bool kWide>
struct ForwardStrip {
  static constexpr int kChannels = kStripChannels<Out, kWide>;
  static constexpr int kColumns = kWide || sizeof(Out) > 2 ? 1 : 2;
  static constexpr int kRows = kChannels * kColumns == 1 && sizeof(Out) <= 4 ? 4 : 2;
};

template <typename Image, typename Out, typename Taps>
struct ForwardParams {
  ForwardProblem<Image, Out, Taps> problem;
  Tiling tiling;
  int64_t tiles;  // of all crops
  AffineParams<Accumulate<Image>> affine;
};

// One source row, interpolated at the thread's columns.
template <typename Image, typename Strip>
struct InterpolatedRow {
  using T = Accumulate<Image>;
  using Pixels = Pack<Image, Strip::kChannels>;
  T values[Strip::kColumns][Strip::kChannels];

  __device__ __forceinline__ void interpolate(const Pixels (&pixels)[Strip::kColumns][2],
                                              const SourceColumns<Image, Strip>& columns) {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      RACNN_UNROLL
      for (int v = 0; v < Strip::kChannels; ++v) {
        values[m][v] = std::fma(columns.w_upper[m], widen<T>(pixels[m][1].values[v]),
                                columns.w_lower[m] * widen<T>(pixels[m][0].values[v]));
      }
    }
  }
};

// What turns interpolated pixels of a thread's channels into outputs.
template <typename T, typename Strip>
struct Finish {
  T scale[Strip::kChannels], shift[Strip::kChannels];
  T fill;  // where a row or a column reads no pixel

  __device__ __forceinline__ Finish(const AffineParams<T>& affine, int64_t c, T fill) : fill(fill) {
    RACNN_UNROLL
    for (int v = 0; v < Strip::kChannels; ++v) {
      scale[v] = affine.scale_of(c + v);
      shift[v] = affine.shift_of(c + v);
    }
  }
};

// One output row of a strip from its two interpolated source rows. `out` is its first element of the thread.
template <typename Strip, typename Image, typename Out, typename Taps>
__device__ __forceinline__ void store_forward_row(const ForwardParams<Image, Out, Taps>& p,
                                                  const SourceColumns<Image, Strip>& columns,
                                                  const RowTap<Accumulate<Image>>& row,
                                                  const InterpolatedRow<Image, Strip>& lower,
                                                  const InterpolatedRow<Image, Strip>& upper,
                                                  int32_t first_column,
                                                  const Finish<Accumulate<Image>, Strip>& finish, Out* out) {
  using T = Accumulate<Image>;
  Pack<Out, Strip::kColumns * Strip::kChannels> pack;
  RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    const T weight = (columns.w_lower[m] + columns.w_upper[m]) * (row.w_lower + row.w_upper);
    RACNN_UNROLL
    for (int v = 0; v < Strip::kChannels; ++v) {
      const T pixel = std::fma(row.w_upper, upper.values[m][v], row.w_lower * lower.values[m][v]);
      const T value = std::fma(pixel, finish.scale[v], finish.shift[v] * weight);
      pack.values[m * Strip::kChannels + v] =
          narrow<Out>(columns.inside[m] && row.plan >= 0 ? value : finish.fill);
    }
  }
  if constexpr (Strip::kColumns == 1) {
    store_pack(out, pack);
  } else if (p.tiling.packed) {
    store_pack(out, pack);
  } else {
    RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      const int32_t step = m * p.tiling.column_step;
      if (first_column + step < p.problem.shape.out_width) {
        out[step * p.problem.out_strides.x] = pack.values[m];
      }
    }
  }
}

// A strip of one thread with its kRows row taps, of which the first `count` are rows of the crop.
template <typename Strip, typename Image, typename Out, typename Taps>
__device__ __forceinline__ void forward_strip(const ForwardParams<Image, Out, Taps>& p,
                                              const SourceColumns<Image, Strip>& columns,
                                              const RowTap<Accumulate<Image>>* rows, int32_t count,
                                              int32_t first_column,
                                              const Finish<Accumulate<Image>, Strip>& finish, Out* out) {
  SourcePixels<Image, Strip> source;
  source.load(columns, rows);
  InterpolatedRow<Image, Strip> lower{}, upper{};
  RACNN_UNROLL
  for (int r = 0; r < Strip::kRows; ++r) {
    const int32_t plan = rows[r].plan;
    if (plan & kLoadLower) {
      lower.interpolate(source.lower[r], columns);
    } else if (plan & kStepDown) {
      lower = upper;
    }
    if (plan & kLoadUpper) upper.interpolate(source.upper[r], columns);
    if (r < count) store_forward_row(p, columns, rows[r], lower, upper, first_column, finish, out);
    out += p.problem.out_strides.y;
  }
}

template <typename Strip, typename Image, typename Out, typename Taps>
__device__ __forceinline__ void forward_tile(const ForwardParams<Image, Out, Taps>& p, int64_t crop,
                                             const Tile& tile, const AxesOf<Taps>& axes,
                                             const RowTap<Accumulate<Image>>* rows) {
  using T = Accumulate<Image>;
  const ForwardProblem<Image, Out, Taps>& problem = p.problem;
  const Share share = share_of<Strip>(p.tiling, tile, problem.shape, threadIdx.x);
  if (!share.exists) return;
  const Strides &in_strides = problem.image_strides, &out_strides = problem.out_strides;
  const int64_t image = crop / problem.shape.windows;
  SourceColumns<Image, Strip> columns(axes.x, share.column, p.tiling.column_step,
                                      problem.images + image * in_strides.b + share.channel * in_strides.c,
                                      in_strides.x);
  RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) columns.inside[m] = columns.inside[m] && axes.finite;
  const T fill = axes.finite ? T(0) : kNaN<T>;
  Out* plane = problem.out + crop_offset(out_strides, crop, problem.shape.windows) +
               share.channel * out_strides.c + share.row * out_strides.y + share.column * out_strides.x;
  for (int64_t c = share.channel; c < share.channel_end; c += share.channel_step) {
    const Finish<T, Strip> finish(p.affine, c, fill);
    Out* out = plane;
    for (int32_t i = share.row; i < share.row_end; i += share.row_step) {
      forward_strip(p, columns, rows + (i - tile.row), share.row_end - i, share.column, finish, out);
      out += share.row_step * out_strides.y;
    }
    plane += share.channel_step * out_strides.c;
    columns.advance(share.channel_step * in_strides.c);
  }
}

template <typename Image, typename Out, typename Taps, bool kWide>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<Accumulate<Image>, kWide>)
    forward_kernel(ForwardParams<Image, Out, Taps> p) {
  using T = Accumulate<Image>;
  using Strip = ForwardStrip<Out, kWide>;
  auto* const axes = shared_memory<AxesOf<Taps>>();
  RowTap<T>* const rows = reinterpret_cast<RowTap<T>*>(axes + 1);
  for (int64_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const int64_t crop = t / p.tiling.tiles();
    const Tile tile = tile_at(p.tiling, t % p.tiling.tiles());
    if (threadIdx.x == 0) *axes = crop_axes(p.problem.taps, p.problem.shape, crop);
    __syncthreads();
    make_row_taps<Strip::kRows>(axes->y, tile.row, p.tiling.rows,
                                p.problem.image_strides.y * int64_t(sizeof(Image)), rows);
    __syncthreads();
    forward_tile<Strip>(p, crop, tile, *axes, rows);
    __syncthreads();
  }
}

// Whether neighbouring channels can be read and written as one word.
template <typename Image, typename Out, typename Taps>
bool is_wide(const ForwardProblem<Image, Out, Taps>& p) {
  constexpr int kChannels = kStripChannels<Out, true>;
  const Strides &in = p.image_strides, &out = p.out_strides;
  return p.shape.channels >= kFewestWideChannels && in.c == 1 && out.c == 1 &&
         can_pack<kChannels>(p.images, p.shape.channels, {in.b, in.y, in.x}) &&
         can_pack<kChannels>(p.out, p.shape.channels, {out.b, out.k, out.y, out.x});
}

template <bool kWide, typename Image, typename Out, typename Taps>
cudaError_t launch_forward(const ForwardProblem<Image, Out, Taps>& p, cudaStream_t stream,
                           int64_t max_blocks) {
  using T = Accumulate<Image>;
  using Strip = ForwardStrip<Out, kWide>;
  const Strides& out = p.out_strides;
  const bool channels_fastest = p.shape.channels > 1 && out.c < out.x;
  const bool packed = !channels_fastest && out.x == 1 &&
                      can_pack<Strip::kColumns>(p.out, p.shape.out_width, {out.b, out.k, out.c, out.y});
  const Tiling tiling = make_tiling<Strip>(
      p.shape, {channels_fastest, packed, Strip::kChannels, multiprocessors(), kRegisters<kWide>});
  const int64_t tiles = tiling.tiles() * p.shape.batch * p.shape.windows;
  const size_t shared_bytes = sizeof(AxesOf<Taps>) + tiling.rows * sizeof(RowTap<T>);
  return launch(
      forward_kernel<Image, Out, Taps, kWide>, dim3(unsigned(std::min(tiles, max_blocks))),
      dim3(tiling.threads()), shared_bytes, stream,
      ForwardParams<Image, Out, Taps>{p, tiling, tiles, AffineParams<T>(p.affine, p.shape.channels)});
}

template <typename Image, typename Out, typename Taps>
cudaError_t compute(const ForwardProblem<Image, Out, Taps>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  if (p.shape.batch == 0 || p.shape.windows == 0 || p.shape.channels == 0) return cudaSuccess;
  return is_wide(p) ? launch_forward<true>(p, stream, max_blocks)
                    : launch_forward<false>(p, stream, max_blocks);
}

}  // namespace racnn
