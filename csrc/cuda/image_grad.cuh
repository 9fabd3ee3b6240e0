// SPDX-License-Identifier: BSD-3-Clause
//
// The gradient of the images: grad_images[b, c, y, x] = sum_k sum_i b_i(y) sum_j a_j(x) g[b, k, c, i, j], the
// contraction with the tables the other way round (contraction.cuh).
#pragma once

#include "contraction.cuh"

namespace racnn {

template <typename Grad, typename Image, typename Taps>
cudaError_t compute(const ImageGradProblem<Grad, Image, Taps>& p, cudaStream_t stream,
                    int64_t max_blocks = kMaxBlocks) {
  using T = Accumulate<Image>;
  return launch_contraction(
      ContractionParams<Grad, Image, Taps, true>{p.grad_output, p.grad_images, p.shape, p.grad_strides,
                                                 p.image_strides, p.taps,
                                                 AffineParams<T>(p.affine, p.shape.channels)},
      p.index, kMultiprocessors, stream, max_blocks);
}

}  // namespace racnn
