// SPDX-License-Identifier: BSD-3-Clause
//
// The forward pass: out[n, c, i, j] = sum_y b_i(y) sum_x a_j(x) images[b, c, y, x] (contraction.cuh).
#pragma once

#include "contraction.cuh"

namespace racnn {

template <typename Image, typename Out, typename Taps>
cudaError_t compute(const ForwardProblem<Image, Out, Taps>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Image>;
  return launch_contraction(
      ContractionParams<Image, Out, Taps, false>{p.images, p.out, p.shape, p.image_strides, p.out_strides,
                                                 p.taps, AffineParams<T>(p.affine, p.shape.channels)},
      p.index, multiprocessors(), stream, max_blocks);
}

}  // namespace racnn
