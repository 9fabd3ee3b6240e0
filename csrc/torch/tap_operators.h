// SPDX-License-Identifier: BSD-3-Clause
//
// From torch to the kernels, as crop_operators.h: the operators that take tap tables (TapTables in
// problems.h).
#pragma once

#include "tensors.h"

namespace racnn {

// The tables of B * K crops: pixels [B, K, out] of int32 and weights [B, K, out, 2], for both axes.
struct CheckedTaps {
  Tensor rows, row_weights, columns, column_weights;  // contiguous
  ScalarType dtype;

  CheckedTaps(const Tensor& rows, const Tensor& row_weights, const Tensor& columns,
              const Tensor& column_weights)
      : rows(dense(rows)),
        row_weights(dense(row_weights)),
        columns(dense(columns)),
        column_weights(dense(column_weights)),
        dtype(row_weights.scalar_type()) {
    check(dtype == ScalarType::Float || dtype == ScalarType::Double, "weights must be float32 or float64");
    check(column_weights.scalar_type() == dtype && same_device(row_weights, column_weights),
          "row and column weights must agree in dtype and device");
    check_axis(rows, row_weights);
    check_axis(columns, column_weights);
    check(rows.size(0) == columns.size(0) && rows.size(1) == columns.size(1),
          "rows and columns must agree in B and K");
  }

  CropShape shape(int64_t channels, int64_t height, int64_t width) const {
    return {rows.size(0),
            rows.size(1),
            channels,
            checked_side(height),
            checked_side(width),
            checked_side(rows.size(2)),
            checked_side(columns.size(2))};
  }

  template <typename T>
  TapTables<T> tables() const {
    return {{rows.const_data_ptr<int32_t>(), row_weights.const_data_ptr<T>()},
            {columns.const_data_ptr<int32_t>(), column_weights.const_data_ptr<T>()}};
  }

  // `t` is [B, ...] or [B, K, ...] like the crops.
  void check_like(const Tensor& t, bool crops) const {
    check(t.dim() == (crops ? 5 : 4), "images must be [B, C, H, W] and crops [B, K, C, h, w]");
    check(t.scalar_type() == dtype && same_device(t, row_weights), "all tensors must share dtype and device");
    check(t.size(0) == rows.size(0), "all tensors must agree in B");
    check(!crops || (t.size(1) == rows.size(1) && t.size(3) == rows.size(2) && t.size(4) == columns.size(2)),
          "grad_output must have the shape of the crops");
  }

 private:
  static Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

  static void check_axis(const Tensor& pixels, const Tensor& weights) {
    check(pixels.scalar_type() == ScalarType::Int && same_device(pixels, weights),
          "rows and columns must be int32, on the device of their weights");
    check(pixels.dim() == 3 && weights.dim() == 4 && weights.size(3) == 2 &&
              weights.size(0) == pixels.size(0) && weights.size(1) == pixels.size(1) &&
              weights.size(2) == pixels.size(2),
          "rows and columns must be [B, K, out], their weights [B, K, out, 2]");
  }
};

template <typename Backend>
Tensor tap_crop(Tensor images, Tensor rows, Tensor row_weights, Tensor columns, Tensor column_weights) {
  const CheckedTaps taps(rows, row_weights, columns, column_weights);
  taps.check_like(images, false);
  const CropShape shape = taps.shape(images.size(1), images.size(2), images.size(3));
  const Tensor out =
      empty_dense({shape.batch, shape.windows, shape.channels, shape.out_height, shape.out_width},
                  is_channels_last(images), taps.dtype, images);
  if (is_empty(shape)) return out;
  const typename Backend::Guard guard(images);
  with_accumulate_type(taps.dtype, [&]<typename T>(Type<T>) {
    Backend::compute(TapForwardProblem<T>{images.const_data_ptr<T>(), out.mutable_data_ptr<T>(), shape,
                                          strides_of(images), strides_of(out), taps.tables<T>()});
  });
  return out;
}

template <typename Backend>
Tensor tap_image_grad(Tensor grad_output, Tensor rows, Tensor row_weights, Tensor columns,
                      Tensor column_weights, int64_t height, int64_t width, bool channels_last) {
  const CheckedTaps taps(rows, row_weights, columns, column_weights);
  taps.check_like(grad_output, true);
  const CropShape shape = taps.shape(grad_output.size(2), height, width);
  const Tensor grad_images =
      empty_dense({shape.batch, shape.channels, height, width}, channels_last, taps.dtype, grad_output);
  if (shape.batch == 0 || shape.channels == 0) return grad_images;
  const typename Backend::Guard guard(grad_output);
  with_accumulate_type(taps.dtype, [&]<typename T>(Type<T>) {
    Backend::compute(TapImageGradProblem<T>{grad_output.const_data_ptr<T>(),
                                            grad_images.mutable_data_ptr<T>(), shape, strides_of(grad_output),
                                            strides_of(grad_images), taps.tables<T>()});
  });
  return grad_images;
}

}  // namespace racnn
