// SPDX-License-Identifier: BSD-3-Clause
#include "../../csrc/cuda/forward.cuh"
#include "../../csrc/cuda/image_grad.cuh"
#include "bindings.h"

namespace racnn {
namespace {

// Pixels (B, K, out), weights (B, K, out, 2), contiguous.
struct Tables {
  py::array rows, row_weights, columns, column_weights;

  template <typename T>
  TapTables<T> get() const {
    return {{data<int32_t>(rows), data<T>(row_weights)}, {data<int32_t>(columns), data<T>(column_weights)}};
  }
};

void tap_crop(const py::array& images, const Tables& tables, py::array& out, const Options& options) {
  with_type<float, double>(images, [&]<typename T>(Type<T>) {
    check_launch(compute(TapForwardProblem<T>{data<T>(images), mutable_data<T>(out), shape_of(images, out),
                                              strides_of(images), strides_of(out), tables.get<T>()},
                         cudaStream_t{}, options.max_blocks));
  });
}

void tap_image_grad(const py::array& grad_output, const Tables& tables, py::array& grad_images,
                    const Options& options) {
  with_type<float, double>(grad_output, [&]<typename T>(Type<T>) {
    check_launch(compute(TapImageGradProblem<T>{data<T>(grad_output), mutable_data<T>(grad_images),
                                                shape_of(grad_images, grad_output), strides_of(grad_output),
                                                strides_of(grad_images), tables.get<T>()},
                         cudaStream_t{}, options.max_blocks));
  });
}

}  // namespace

void bind_taps(py::module_& m) {
  py::class_<Tables>(m, "Tables")
      .def(py::init<py::array, py::array, py::array, py::array>(), py::arg("rows"), py::arg("row_weights"),
           py::arg("columns"), py::arg("column_weights"));
  m.def("tap_crop", &tap_crop, py::arg("images"), py::arg("tables"), py::arg("out"), py::arg("options"));
  m.def("tap_image_grad", &tap_image_grad, py::arg("grad_output"), py::arg("tables"), py::arg("grad_images"),
        py::arg("options"));
}

}  // namespace racnn
