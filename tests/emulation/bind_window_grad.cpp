// SPDX-License-Identifier: BSD-3-Clause
#include "../../csrc/cuda/window_grad.cuh"
#include "bindings.h"

namespace racnn {
namespace {

template <typename Image, typename Grad>
void run(const py::array& grad_output, const py::array& images, const py::array& windows,
         py::array& grad_windows, const Options& options, const Index& index) {
  using Acc = Accumulate<Image>;
  const CropShape shape = shape_of(images, grad_output);
  const auto workspace = poisoned<Acc>(window_grad_workspace(shape) * kAxisSums);
  with_taps<Image, Grad>(windows, options, [&]<typename Taps>(const Taps& taps) {
    check_launch(compute(
        WindowGradProblem<Image, Grad, Taps>{
            data<Grad>(grad_output), data<Image>(images), mutable_data<Acc>(grad_windows),
            reinterpret_cast<Window<Acc>*>(workspace.get()), shape, strides_of(grad_output),
            strides_of(images), taps, options.affine(), image_index(index, images)},
        cudaStream_t{}, options.max_blocks));
  });
}

void window_grad(const py::array& grad_output, const py::array& images, const py::array& windows,
                 py::array& grad_windows, const Options& options, const Index& index) {
  with_types(images, grad_output, [&]<typename Image, typename Grad>(Type<Image>, Type<Grad>) {
    if constexpr (!std::is_same_v<Grad, uint8_t>) {
      run<Image, Grad>(grad_output, images, windows, grad_windows, options, index);
    }
  });
}

}  // namespace

void bind_window_grad(py::module_& m) {
  m.def("window_grad", &window_grad, py::arg("grad_output"), py::arg("images"), py::arg("windows"),
        py::arg("grad_windows"), py::arg("options"), py::arg("index") = py::none());
}

}  // namespace racnn
