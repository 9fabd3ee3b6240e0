// SPDX-License-Identifier: BSD-3-Clause
#include "../../csrc/cuda/image_grad.cuh"
#include "bindings.h"

namespace racnn {
namespace {

template <typename Grad, typename Image>
void run(const py::array& grad_output, const py::array& windows, py::array& grad_images,
         const Options& options, const Index& index) {
  CropShape shape = shape_of(grad_images, grad_output);
  Strides strides = strides_of(grad_output);
  if (index) {
    shape.windows = shape.batch;
    shape.batch = grad_images.shape(0);
    strides.k = strides.b;
    strides.b = 0;
  }
  with_taps<Image, Grad>(windows, options, [&]<typename Taps>(const Taps& taps) {
    check_launch(
        compute(ImageGradProblem<Grad, Image, Taps>{data<Grad>(grad_output), mutable_data<Image>(grad_images),
                                                    shape, strides, strides_of(grad_images), taps,
                                                    options.affine(), image_index(index, grad_images)},
                cudaStream_t{}, options.max_blocks));
  });
}

void image_grad(const py::array& grad_output, const py::array& windows, py::array& grad_images,
                const Options& options, const Index& index) {
  with_types(grad_images, grad_output, [&]<typename Image, typename Grad>(Type<Image>, Type<Grad>) {
    if constexpr (!std::is_same_v<Image, uint8_t>) {
      run<Grad, Image>(grad_output, windows, grad_images, options, index);
    }
  });
}

}  // namespace

void bind_image_grad(py::module_& m) {
  m.def("image_grad", &image_grad, py::arg("grad_output"), py::arg("windows"), py::arg("grad_images"),
        py::arg("options"), py::arg("index") = py::none());
}

}  // namespace racnn
