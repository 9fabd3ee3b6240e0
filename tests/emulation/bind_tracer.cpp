// SPDX-License-Identifier: BSD-3-Clause
#include "bindings.h"
#include "tracer.h"

namespace racnn {

void bind_tracer(py::module_& m) {
  using namespace emulation::tracer;
  py::class_<Accesses>(m, "Accesses")
      .def_readonly("instructions", &Accesses::instructions)
      .def_readonly("sectors", &Accesses::sectors)
      .def_readonly("wavefronts", &Accesses::wavefronts);
  py::class_<DeviceMemory>(m, "DeviceMemory")
      .def_readonly("read_sectors", &DeviceMemory::read_sectors)
      .def_readonly("written_sectors", &DeviceMemory::written_sectors);
  py::class_<TracedBlock>(m, "TracedBlock")
      .def_readonly("number", &TracedBlock::number)
      .def_readonly("loads", &TracedBlock::loads)
      .def_readonly("stores", &TracedBlock::stores)
      .def_readonly("empty", &TracedBlock::empty);
  py::class_<Launch>(m, "TracedLaunch")
      .def_readonly("kernel", &Launch::kernel)
      .def_readonly("grid", &Launch::grid)
      .def_readonly("block", &Launch::block)
      .def_readonly("shared_bytes", &Launch::shared_bytes)
      .def_property_readonly("params", [](const Launch& launch) { return py::bytes(launch.params); })
      .def_readonly("loads", &Launch::loads)
      .def_readonly("stores", &Launch::stores)
      .def_readonly("l2_read_sectors", &Launch::l2_read_sectors)
      .def_readonly("regions", &Launch::regions)
      .def_readonly("blocks", &Launch::blocks);
  m.def("reset_trace", &reset, py::arg("l1_bytes"), py::arg("l2_bytes"));
  m.def(
      "add_region",
      [](const std::string& name, const py::array& array, bool is_data) {
        add_region(name, array.data(), size_t(array.nbytes()), is_data);
      },
      py::arg("name"), py::arg("array"), py::arg("is_data"));
  py::class_<Region>(m, "Region")
      .def_readonly("name", &Region::name)
      .def_readonly("begin", &Region::begin)
      .def_property_readonly("bytes", [](const Region& region) { return region.end - region.begin; })
      .def_readonly("is_data", &Region::is_data);
  m.def("regions", &regions);
  m.def("sample_blocks", &sample, py::arg("units"), py::arg("blocks"));
  m.def("take_traced_launches", &take_launches);
}

}  // namespace racnn
