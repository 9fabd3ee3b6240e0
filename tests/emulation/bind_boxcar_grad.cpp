// SPDX-License-Identifier: BSD-3-Clause
#include "../../csrc/cuda/boxcar_grad.cuh"
#include "bindings.h"

namespace racnn {
namespace {

void boxcar_grad(const py::array& grad_output, const py::array& windows, py::array& grad_windows,
                 const std::string& energy, double steepness, double scale, double shrink,
                 const Options& options) {
  const Energy kind = energy == "abs" ? Energy::kAbs : Energy::kSquare;
  const CropShape shape = shape_of(grad_output, grad_output);
  with_type<float, __half, __nv_bfloat16, double>(grad_output, [&]<typename Grad>(Type<Grad>) {
    using Acc = Accumulate<Grad>;
    const auto workspace = poisoned<Acc>(boxcar_grad_workspace(shape, kind));
    check_launch(
        compute(BoxcarProblem<Grad>{data<Grad>(grad_output), mutable_data<Acc>(grad_windows), workspace.get(),
                                    shape, strides_of(grad_output), window_spec<Acc>(windows, options).data,
                                    window_values(windows), kind, Acc(steepness), Acc(scale), Acc(shrink)},
                cudaStream_t{}, options.max_blocks));
  });
}

}  // namespace

void bind_boxcar_grad(py::module_& m) {
  m.def("boxcar_grad", &boxcar_grad, py::arg("grad_output"), py::arg("windows"), py::arg("grad_windows"),
        py::arg("energy"), py::arg("steepness"), py::arg("scale"), py::arg("shrink"), py::arg("options"));
}

}  // namespace racnn
