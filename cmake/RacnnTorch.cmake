# SPDX-License-Identifier: BSD-3-Clause
#
# Finds PyTorch through a Python interpreter. With the stable ABI, headers and libtorch_cpu.so are all that is
# needed; find_package(Torch) would ask for the CUDA toolkit that torch was built with. This file is also installed,
# for find_package(racnn_ops).
#
#   racnn::torch              headers and libtorch_cpu.so
#   RACNN_TORCH_DIR           torch's folder
#   RACNN_TORCH_INCLUDE_DIR, RACNN_TORCH_VERSION

find_package(Python 3.10 COMPONENTS Interpreter)
if(NOT Python_FOUND)
  message(FATAL_ERROR
    "No Python 3.10 or newer was found on PATH: set -DPython_EXECUTABLE to the interpreter that has torch.")
endif()

execute_process(
  COMMAND ${Python_EXECUTABLE} -c "
import importlib.metadata, importlib.util, os
spec = importlib.util.find_spec('torch')
print(os.path.dirname(spec.origin) + ';' + importlib.metadata.version('torch') if spec and spec.origin else '')"
  OUTPUT_VARIABLE torch OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT torch)
  message(FATAL_ERROR
    "PyTorch was not found by ${Python_EXECUTABLE}: install torch>=2.10 there, "
    "or set -DPython_EXECUTABLE to the interpreter that has it.")
endif()
list(GET torch 0 RACNN_TORCH_DIR)
list(GET torch 1 RACNN_TORCH_VERSION)
set(RACNN_TORCH_INCLUDE_DIR ${RACNN_TORCH_DIR}/include)
string(REGEX MATCH "^[0-9.]+" torch_release ${RACNN_TORCH_VERSION})
if(torch_release VERSION_LESS 2.10)
  message(FATAL_ERROR
    "PyTorch ${RACNN_TORCH_VERSION} in ${RACNN_TORCH_DIR} is too old: install torch>=2.10, "
    "or set -DPython_EXECUTABLE to an interpreter that has it.")
endif()

if(NOT TARGET racnn::torch)
  add_library(racnn::torch SHARED IMPORTED)
  set_target_properties(racnn::torch PROPERTIES
    IMPORTED_LOCATION ${RACNN_TORCH_DIR}/lib/libtorch_cpu.so
    INTERFACE_INCLUDE_DIRECTORIES ${RACNN_TORCH_INCLUDE_DIR})
endif()
message(STATUS "racnn_ops: torch ${RACNN_TORCH_VERSION} (${RACNN_TORCH_DIR})")
