// SPDX-License-Identifier: BSD-3-Clause
//
// The contraction with given tap tables.
#pragma once

#include "tap_tables.cuh"

namespace racnn {

template <typename T>
__global__ void __launch_bounds__(kTapThreads) tap_forward_kernel(DealtParams<TapForwardProblem<T>> p) {
  const TapForwardProblem<T>& problem = p.problem;
  const CropShape& s = problem.shape;
  for (int64_t index = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; index < p.items;
       index += int64_t(gridDim.x) * blockDim.x) {
    const Deal::Item at = p.deal.item(index);
    const T* b = weights_of(problem.taps.rows, at.n, s.out_height, at.row);
    const T* a = weights_of(problem.taps.columns, at.n, s.out_width, at.column);
    const T weights[2][2] = {{b[0] * a[0], b[0] * a[1]}, {b[1] * a[0], b[1] * a[1]}};
    const int64_t y = problem.taps.rows.pixels[at.n * s.out_height + at.row];
    const int64_t x = problem.taps.columns.pixels[at.n * s.out_width + at.column];
    const Strides &in = problem.image_strides, &out = problem.out_strides;
    const T* image = problem.images + at.n / s.windows * in.b + at.channel * in.c;
    T* result = problem.out + crop_offset(out, at.n, s.windows) + at.channel * out.c + at.row * out.y +
                at.column * out.x;
    for (int32_t c = 0; c < at.count; ++c) {
      T total = T(0);
      RACNN_UNROLL
      for (int k = 0; k < 4; ++k) {
        if (is_inside(y + k / 2, s.height) && is_inside(x + k % 2, s.width)) {
          total =
              std::fma(weights[k / 2][k % 2], __ldg(image + (y + k / 2) * in.y + (x + k % 2) * in.x), total);
        }
      }
      *result = total;
      image += in.c;
      result += out.c;
    }
  }
}

template <typename T>
cudaError_t compute(const TapForwardProblem<T>& p, cudaStream_t stream, int64_t max_blocks = kMaxBlocks) {
  const Deal deal(p.shape.channels, p.shape.out_height, p.shape.out_width, p.out_strides);
  const DealtParams<TapForwardProblem<T>> params{p, deal, deal.items(p.shape.batch * p.shape.windows)};
  if (params.items == 0) return cudaSuccess;
  return launch_items(tap_forward_kernel<T>, params, stream, max_blocks);
}

}  // namespace racnn
