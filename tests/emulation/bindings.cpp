// SPDX-License-Identifier: BSD-3-Clause
//
// The project's CUDA kernels for Python, on numpy arrays: each function runs the launch function that the GPU
// runs too. Every array, the results among them, is the caller's.
#include "bindings.h"

namespace racnn {
namespace {

// The enumerator by its name; `names` are in the enumeration's order.
template <typename Enum>
Enum parse(const std::string& name, std::initializer_list<const char*> names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw std::invalid_argument("no option is called '" + name + "'");
  return Enum(found - names.begin());
}

Options make_options(const std::string& boundary, double mask_steepness, std::vector<double> scale,
                     std::vector<double> shift, int64_t max_blocks, const std::string& interpolation,
                     bool antialias, std::vector<double> offset) {
  if (!offset.empty() && offset.size() != scale.size()) {
    throw std::invalid_argument("an offset needs scale and shift");
  }
  return {parse<Boundary>(boundary, {"zeros", "border", "clip", "window"}),
          mask_steepness,
          std::move(scale),
          std::move(shift),
          max_blocks,
          parse<Interpolation>(interpolation, {"nearest", "bilinear", "bicubic", "lanczos3", "area"}),
          antialias,
          std::move(offset)};
}

}  // namespace
}  // namespace racnn

PYBIND11_MODULE(emulated_kernels, m) {
  namespace py = pybind11;
  py::class_<racnn::Options>(m, "Options")
      .def(py::init(&racnn::make_options), py::kw_only(), py::arg("boundary") = "zeros",
           py::arg("mask_steepness") = 0.0, py::arg("scale") = std::vector<double>{},
           py::arg("shift") = std::vector<double>{}, py::arg("max_blocks") = int64_t(0x7fffffff),
           py::arg("interpolation") = "bilinear", py::arg("antialias") = false,
           py::arg("offset") = std::vector<double>{});
  m.def("set_reverse_order", &emulation::set_reverse_order, py::arg("reverse"));
  py::class_<emulation::Launch>(m, "Launch")
      .def_readonly("blocks", &emulation::Launch::blocks)
      .def_readonly("idle", &emulation::Launch::idle);
  m.def("take_launches", &emulation::take_launches);
  racnn::bind_forward(m);
  racnn::bind_window_grad(m);
  racnn::bind_image_grad(m);
  racnn::bind_boxcar_grad(m);
#if defined(RACNN_TRACED)
  racnn::bind_tracer(m);
#else
  racnn::bind_taps(m);
#endif
}
