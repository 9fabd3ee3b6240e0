// SPDX-License-Identifier: BSD-3-Clause
//
// The forward pass, out[n, c, i, j] = sum_y sum_x b_i(y) a_j(x) images[b, c, y, x].
//
// Grid: a block takes tiles of the crops (tiling.cuh), one after another. The block computes the row taps of the
// tile into shared memory, each thread the taps of its own columns into registers; from then on a pixel costs no
// floor, division or exp, whatever the mask and the boundary. A thread issues all loads of a strip before it uses the
// first, about 10 to 20 of them, then interpolates each source row horizontally once and keeps it for the output rows
// that share it. So at a zoom of one or more an output costs little more than one pair of loads, neighbouring lanes read
// and write neighbouring addresses in either memory format, and the time is that of the memory traffic.
#pragma once

#include "affine.cuh"
#include "taps.cuh"

namespace racnn {

template <typename Image, typename Out>
struct CropForwardParams {
  ForwardProblem<Image, Out> problem;  // of one chunk of channels
  Tiling tiling;
  int64_t tiles;  // of all crops
  bool packed;    // a thread's kColumns columns are stored as one word
  AffineChunk<Accumulate<Image>> affine;
};

// The columns of one thread: where they are read, and their weights.
template <typename Image, typename Strip>
struct ForwardColumns {
  using T = Accumulate<Image>;
  const Image* pixels[Strip::kColumns][2];  // lower and upper pixel in row 0 of the strip's first channel
  T w_lower[Strip::kColumns], w_upper[Strip::kColumns];
  bool inside[Strip::kColumns];
  T fill;  // of outputs that are not inside
};

template <typename Strip, typename Image>
__device__ __forceinline__ ForwardColumns<Image, Strip> make_forward_columns(const Axis<Accumulate<Image>>& axis,
                                                                             int32_t first, int32_t step,
                                                                             const Image* image, int64_t stride) {
  ForwardColumns<Image, Strip> columns;
RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    const int32_t j = first + m * step;  // beyond the crop the last column is read again, and not stored
    const auto column = readable(make_tap(axis, j < axis.out ? j : axis.out - 1));
    columns.pixels[m][0] = image + column.tap.lower * stride;
    columns.pixels[m][1] = image + column.tap.upper * stride;
    columns.w_lower[m] = column.tap.w_lower, columns.w_upper[m] = column.tap.w_upper;
    columns.inside[m] = column.inside;
  }
  return columns;
}

// One source row, interpolated at the thread's columns.
template <typename Image, typename Strip>
struct InterpolatedRow {
  using T = Accumulate<Image>;
  using Pixels = Pack<Image, Strip::kChannels>;
  T values[Strip::kColumns][Strip::kChannels];

  __device__ __forceinline__ void interpolate(const Pixels (&pixels)[Strip::kColumns][2],
                                              const ForwardColumns<Image, Strip>& columns) {
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

// One output row of a strip, from the two interpolated source rows, to `out` (row i, the thread's first column).
template <typename Strip, typename Image, typename Out>
__device__ __forceinline__ void store_forward_row(const CropForwardParams<Image, Out>& p,
                                                  const ForwardColumns<Image, Strip>& columns,
                                                  const RowTap<Accumulate<Image>>& row,
                                                  const InterpolatedRow<Image, Strip>& lower,
                                                  const InterpolatedRow<Image, Strip>& upper, int32_t first_column,
                                                  int64_t c, Out* out) {
  using T = Accumulate<Image>;
  constexpr int kChannels = Strip::kChannels;
  Pack<Out, Strip::kColumns * kChannels> pack;
RACNN_UNROLL
  for (int m = 0; m < Strip::kColumns; ++m) {
    const T weight = (columns.w_lower[m] + columns.w_upper[m]) * (row.w_lower + row.w_upper);
RACNN_UNROLL
    for (int v = 0; v < kChannels; ++v) {
      T value = std::fma(row.w_upper, upper.values[m][v], row.w_lower * lower.values[m][v]);
      if (p.affine.used) value = std::fma(value, p.affine.scale[c + v], p.affine.shift[c + v] * weight);
      const bool inside = columns.inside[m] && (row.plan & kInside);
      pack.values[m * kChannels + v] = narrow<Out>(inside ? value : columns.fill);
    }
  }
  if constexpr (kChannels > 1) {
    store_pack(out, pack);
  } else if (p.packed) {
    store_pack(out, pack);
  } else {
RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      const int32_t step = m * p.tiling.column_step;
      if (first_column + step < p.problem.shape.out_width) out[step * p.problem.out_strides.x] = pack.values[m];
    }
  }
}

// A strip of one thread: rows [0, kRows) of `rows`, `count` of which exist, at channel c.
template <typename Strip, typename Image, typename Out>
__device__ __forceinline__ void forward_strip(const CropForwardParams<Image, Out>& p,
                                              const ForwardColumns<Image, Strip>& columns,
                                              const RowTap<Accumulate<Image>>* rows, int32_t count,
                                              int32_t first_column, int64_t c, Out* out) {
  SourcePixels<Image, Strip> source;
  source.load(columns.pixels, rows);
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
    if (r < count) {
      store_forward_row(p, columns, rows[r], lower, upper, first_column, c, out + r * p.problem.out_strides.y);
    }
  }
}

template <typename Strip, typename Image, typename Out>
__device__ __forceinline__ void forward_tile(const CropForwardParams<Image, Out>& p, int64_t crop, const Tile& tile,
                                             const Axis<Accumulate<Image>>& x_axis, Accumulate<Image> fill,
                                             const RowTap<Accumulate<Image>>* rows) {
  const ForwardProblem<Image, Out>& problem = p.problem;
  const CropShape& shape = problem.shape;
  const Lane lane = lane_at(p.tiling, threadIdx.x);
  const int32_t j = tile.column + lane.column * (p.packed ? Strip::kColumns : 1);
  if (!lane.exists || j >= shape.out_width) return;

  const int64_t channel = tile.channel + lane.channel * Strip::kChannels;
  const int64_t channel_step = p.tiling.channel_lanes * Strip::kChannels;
  const int64_t channel_end = lesser(tile.channel + p.tiling.channels, shape.channels);
  const Image* image = problem.images + crop / shape.windows * problem.image_strides.b;
  Out* const out = problem.out + crop_offset(problem.out_strides, crop, shape.windows) + j * problem.out_strides.x;
  const int32_t row_end = lesser(tile.row + p.tiling.rows, shape.out_height);
  const int32_t row_step = p.tiling.row_lanes * Strip::kRows;

  auto columns = make_forward_columns<Strip>(x_axis, j, p.tiling.column_step,
                                             image + channel * problem.image_strides.c, problem.image_strides.x);
  columns.fill = fill;
  for (int64_t c = channel; c < channel_end; c += channel_step) {
    Out* const plane = out + c * problem.out_strides.c;
    for (int32_t i = tile.row + lane.row * Strip::kRows; i < row_end; i += row_step) {
      forward_strip(p, columns, rows + (i - tile.row), row_end - i, j, c, plane + i * problem.out_strides.y);
    }
RACNN_UNROLL
    for (int m = 0; m < Strip::kColumns; ++m) {
      columns.pixels[m][0] += channel_step * problem.image_strides.c;
      columns.pixels[m][1] += channel_step * problem.image_strides.c;
    }
  }
}

template <typename Image, typename Out, bool kWide>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<Accumulate<Image>>)
    crop_forward_kernel(CropForwardParams<Image, Out> p) {
  using T = Accumulate<Image>;
  using Strip = Strip<Out, kWide>;
  RowTap<T>* const rows = shared_memory<RowTap<T>>();
  for (int64_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const int64_t crop = t / p.tiling.tiles();
    const Tile tile = tile_at(p.tiling, t % p.tiling.tiles());
    const ForwardProblem<Image, Out>& problem = p.problem;
    const Window<T> window = load_window(problem.windows, crop);
    const bool finite = is_finite(window);
    make_row_taps<Strip::kRows>(y_axis(problem.windows, window, problem.shape), tile.row, p.tiling.rows,
                                problem.image_strides.y, finite, rows);
    __syncthreads();
    forward_tile<Strip>(p, crop, tile, x_axis(problem.windows, window, problem.shape),
                        finite ? T(0) : kNaN<T>, rows);
    __syncthreads();
  }
}

// Whether neighbouring channels can be read and written as one word; with few channels it does not pay.
template <typename Image, typename Out>
bool is_wide(const ForwardProblem<Image, Out>& p) {
  constexpr int kChannels = Strip<Out, true>::kChannels;
  const Strides &in = p.image_strides, &out = p.out_strides;
  return p.shape.channels >= 8 && in.c == 1 && out.c == 1 &&
         can_pack<kChannels>(p.images, p.shape.channels, {in.b, in.y, in.x}) &&
         can_pack<kChannels>(p.out, p.shape.channels, {out.b, out.k, out.y, out.x});
}

template <bool kWide, typename Image, typename Out>
cudaError_t launch_crop_forward_chunk(const ForwardProblem<Image, Out>& p, int64_t first_channel,
                                      cudaStream_t stream, int64_t max_blocks) {
  using Strip = Strip<Out, kWide>;
  const Strides& out = p.out_strides;
  CropForwardParams<Image, Out> params{};
  params.problem = p;
  params.problem.shape.channels = std::min(p.shape.channels - first_channel, affine_chunk(p.affine, p.shape.channels));
  params.problem.images += first_channel * p.image_strides.c;
  params.problem.out += first_channel * out.c;
  const bool channels_fastest = p.shape.channels > 1 && out.c < out.x;
  params.packed = !channels_fastest && out.x == 1 &&
                  can_pack<Strip::kColumns>(params.problem.out, p.shape.out_width, {out.b, out.k, out.c, out.y});
  params.tiling = make_tiling<Strip>(params.problem.shape, channels_fastest, params.packed);
  params.tiles = params.tiling.tiles() * p.shape.batch * p.shape.windows;
  params.affine =
      make_affine_chunk<Accumulate<Image>>(p.affine, first_channel, params.problem.shape.channels);
  const size_t shared_bytes = params.tiling.rows * sizeof(RowTap<Accumulate<Image>>);
  return launch(crop_forward_kernel<Image, Out, kWide>, dim3(unsigned(std::min(params.tiles, max_blocks))),
                dim3(params.tiling.threads()), shared_bytes, stream, params);
}

// One launch; when normalising one for each kAffineChannels channels.
template <typename Image, typename Out>
cudaError_t launch_crop_forward(const ForwardProblem<Image, Out>& p, cudaStream_t stream,
                                int64_t max_blocks = kMaxBlocks) {
  if (p.shape.batch == 0 || p.shape.windows == 0) return cudaSuccess;
  const bool wide = is_wide(p);
  for (int64_t c = 0; c < p.shape.channels; c += affine_chunk(p.affine, p.shape.channels)) {
    const cudaError_t error = wide ? launch_crop_forward_chunk<true>(p, c, stream, max_blocks)
                                   : launch_crop_forward_chunk<false>(p, c, stream, max_blocks);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace racnn
