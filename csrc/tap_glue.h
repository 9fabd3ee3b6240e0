// SPDX-License-Identifier: BSD-3-Clause
//
// From torch to the kernels, as glue.h: the operators that take tap tables (TapTables in crop.h). A Backend
// has
//
//   tap_grad_workspace(const CropShape&, int64_t terms)
//   tap_crop(const TapCropProblem<T>&), tap_image_grad(...), tap_grad(...)
#pragma once

#include <tuple>

#include "glue.h"

namespace racnn {

// The tables of B * K crops: pixels [B, K, out] of int32 and weights [B, K, terms, out, 2], for both axes.
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
    for (int axis = 0; axis < 3; ++axis) {
      check(row_weights.size(axis) == column_weights.size(axis),
            "row and column weights must agree in B, K and terms");
    }
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
            {columns.const_data_ptr<int32_t>(), column_weights.const_data_ptr<T>()},
            row_weights.size(2)};
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
    check(pixels.dim() == 3 && weights.dim() == 5 && weights.size(4) == 2 &&
              weights.size(0) == pixels.size(0) && weights.size(1) == pixels.size(1) &&
              weights.size(3) == pixels.size(2),
          "rows and columns must be [B, K, out], their weights [B, K, terms, out, 2]");
  }
};

// Calls f(Type<float>) or f(Type<double>).
template <typename F>
void with_accumulate_type(ScalarType dtype, const F& f) {
  dtype == ScalarType::Double ? f(Type<double>{}) : f(Type<float>{});
}

template <typename Backend>
Tensor tap_crop(Tensor images, Tensor rows, Tensor row_weights, Tensor columns, Tensor column_weights) {
  const CheckedTaps taps(rows, row_weights, columns, column_weights);
  taps.check_like(images, false);
  check(taps.row_weights.size(2) >= 1, "there must be at least one term");
  const CropShape shape = taps.shape(images.size(1), images.size(2), images.size(3));
  const Tensor out =
      empty_dense({shape.batch, shape.windows, shape.channels, shape.out_height, shape.out_width},
                  is_channels_last(images), taps.dtype, images);
  if (is_empty(shape)) return out;
  const typename Backend::Guard guard(images);
  with_accumulate_type(taps.dtype, [&]<typename T>(Type<T>) {
    Backend::tap_crop(TapCropProblem<T>{{images.const_data_ptr<T>(),
                                         out.mutable_data_ptr<T>(),
                                         shape,
                                         strides_of(images),
                                         strides_of(out),
                                         {},
                                         {}},
                                        taps.tables<T>()});
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
    Backend::tap_image_grad(TapImageGradProblem<T>{{grad_output.const_data_ptr<T>(),
                                                    grad_images.mutable_data_ptr<T>(),
                                                    shape,
                                                    strides_of(grad_output),
                                                    strides_of(grad_images),
                                                    {},
                                                    {}},
                                                   taps.tables<T>()});
  });
  return grad_images;
}

template <typename Backend>
std::tuple<Tensor, Tensor> tap_grad(Tensor grad_output, Tensor images, Tensor rows, Tensor row_weights,
                                    Tensor columns, Tensor column_weights) {
  const CheckedTaps taps(rows, row_weights, columns, column_weights);
  taps.check_like(grad_output, true);
  taps.check_like(images, false);
  check(images.size(1) == grad_output.size(2), "grad_output and images must agree in C");
  const CropShape shape = taps.shape(images.size(1), images.size(2), images.size(3));
  const int64_t terms = taps.row_weights.size(2);
  const Tensor grad_rows =
      empty_dense({shape.batch, shape.windows, terms, shape.out_height, 2}, false, taps.dtype, grad_output);
  const Tensor grad_columns =
      empty_dense({shape.batch, shape.windows, terms, shape.out_width, 2}, false, taps.dtype, grad_output);
  if (shape.batch == 0 || shape.windows == 0 || terms == 0) return {grad_rows, grad_columns};
  const typename Backend::Guard guard(images);
  const Tensor workspace =
      empty_dense({Backend::tap_grad_workspace(shape, terms)}, false, taps.dtype, grad_output);
  with_accumulate_type(taps.dtype, [&]<typename T>(Type<T>) {
    Backend::tap_grad(TapGradProblem<T>{grad_output.const_data_ptr<T>(), images.const_data_ptr<T>(),
                                        grad_rows.mutable_data_ptr<T>(), grad_columns.mutable_data_ptr<T>(),
                                        workspace.mutable_data_ptr<T>(), shape, strides_of(grad_output),
                                        strides_of(images), taps.tables<T>()});
  });
  return {grad_rows, grad_columns};
}

}  // namespace racnn
