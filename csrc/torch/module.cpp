// SPDX-License-Identifier: BSD-3-Clause
//
// racnn_ops._C: importing it loads libracnn_ops.so, which registers the operators. It uses nothing but
// Python's limited API, so that one file serves every Python from 3.10.
#if !defined(Py_GIL_DISABLED)
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include "../problems.h"
#include "build_info.h"

extern "C" const char* racnn_cpu_capability();
extern "C" const char* racnn_library_file();

static PyObject* build_info(PyObject*, PyObject*) { return PyUnicode_FromString(RACNN_BUILD_INFO); }

static PyObject* cuda_build(PyObject*, PyObject*) { return PyUnicode_FromString(RACNN_CUDA_BUILD); }

static PyObject* cpu_capability(PyObject*, PyObject*) { return PyUnicode_FromString(racnn_cpu_capability()); }

static PyObject* library_file(PyObject*, PyObject*) {
  return PyUnicode_DecodeFSDefault(racnn_library_file());
}

static PyObject* fused_pairs(PyObject*, PyObject*) {
  constexpr const char *Float = "float32", *Double = "float64", *Half = "float16", *BFloat16 = "bfloat16",
                       *Byte = "uint8";
#define RACNN_NAMES(IMAGE, CROP) {IMAGE, CROP},
  constexpr const char* pairs[][2] = {RACNN_FUSED_PAIRS(RACNN_NAMES)};
#undef RACNN_NAMES
  PyObject* list = PyList_New(0);
  for (const auto& [image, crop] : pairs) {
    PyObject* pair = list == nullptr ? nullptr : Py_BuildValue("(ss)", image, crop);
    if (pair == nullptr || PyList_Append(list, pair) != 0) Py_CLEAR(list);
    Py_XDECREF(pair);
  }
  return list;
}

PyMODINIT_FUNC PyInit__C() {
  static PyMethodDef methods[] = {
      {"build_info", build_info, METH_NOARGS, "How the libraries were built."},
      {"cuda_build", cuda_build, METH_NOARGS,
       "What the CUDA library was built for, or why it was not built."},
      {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels use here."},
      {"fused_pairs", fused_pairs, METH_NOARGS, "The dtypes of image and crop that have a kernel."},
      {"library_file", library_file, METH_NOARGS, "The libracnn_ops.so that is loaded."},
      {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModuleDef_Init(&definition);
}
