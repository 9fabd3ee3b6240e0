// SPDX-License-Identifier: BSD-3-Clause
#include "../../csrc/cuda/forward.cuh"
#include "bindings.h"

namespace racnn {
namespace {

template <typename Image, typename Out>
void run(const py::array& images, const py::array& windows, py::array& out, const Options& options,
         const Index& index) {
  with_taps<Image, Out>(windows, options, [&]<typename Taps>(const Taps& taps) {
    check_launch(
        compute(ForwardProblem<Image, Out, Taps>{data<Image>(images), mutable_data<Out>(out),
                                                 shape_of(images, out), strides_of(images), strides_of(out),
                                                 taps, options.affine(), image_index(index, images)},
                cudaStream_t{}, options.max_blocks));
  });
}

void forward(const py::array& images, const py::array& windows, py::array& out, const Options& options,
             const Index& index) {
  with_types(images, out, [&]<typename Image, typename Out>(Type<Image>, Type<Out>) {
    run<Image, Out>(images, windows, out, options, index);
  });
}

}  // namespace

void bind_forward(py::module_& m) {
  m.def("forward", &forward, py::arg("images"), py::arg("windows"), py::arg("out"), py::arg("options"),
        py::arg("index") = py::none());
}

}  // namespace racnn
