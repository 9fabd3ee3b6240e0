# SPDX-License-Identifier: BSD-3-Clause
#
# Decides whether the CUDA library is built: by the nvcc that is found, never by a GPU that is present.
#
#   RACNN_WITH_CUDA           whether it is
#   RACNN_NVCC_OPTIONS        for its sources
#   RACNN_CUDA_DESCRIPTION    for `python -m racnn_ops`
#   racnn::torch_cuda         the real libtorch_cuda.so, or a stub where torch is CPU-only

if(DEFINED ENV{RACNN_CUDA})
  set(default_cuda $ENV{RACNN_CUDA})
elseif("$ENV{FORCE_CUDA}" STREQUAL "1")
  set(default_cuda on)
else()
  set(default_cuda auto)
endif()
set(RACNN_CUDA ${default_cuda} CACHE STRING "Build the CUDA library: auto (if nvcc is found), on or off")
set(RACNN_CUDA_ARCH_LIST "$ENV{TORCH_CUDA_ARCH_LIST}" CACHE STRING
  "Such as '8.0;9.0+PTX', or native: this machine's GPUs; the default is every major architecture")

set(RACNN_WITH_CUDA OFF)
set(RACNN_CUDA_DESCRIPTION "not built: RACNN_CUDA=off was set")
string(TOLOWER "${RACNN_CUDA}" racnn_cuda)
if(NOT racnn_cuda MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "RACNN_CUDA is '${RACNN_CUDA}': set it to auto, on or off.")
endif()
if(racnn_cuda STREQUAL "off")
  return()
endif()

include(RacnnArchitectures)
racnn_read_architectures("${RACNN_CUDA_ARCH_LIST}" requested_architectures)

# Who sets CUDA_HOME means that toolkit and no other.
foreach(variable CUDA_HOME CUDA_PATH)
  if(NOT "$ENV{${variable}}" STREQUAL "" AND NOT nvcc_folders)
    set(nvcc_folders $ENV{${variable}}/bin)
    set(nvcc_searched "${variable}=$ENV{${variable}}")
    set(nvcc_only_there NO_DEFAULT_PATH)
  endif()
endforeach()
if(NOT nvcc_folders)
  set(nvcc_folders /usr/local/cuda/bin)
  set(nvcc_searched "PATH and /usr/local/cuda/bin")
endif()
find_program(RACNN_NVCC nvcc PATHS ${nvcc_folders} ${nvcc_only_there})
if(NOT RACNN_NVCC)
  if(racnn_cuda STREQUAL "on")
    message(FATAL_ERROR
      "RACNN_CUDA=on (or FORCE_CUDA=1), but no nvcc was found in ${nvcc_searched}: "
      "set CUDA_HOME to a CUDA toolkit 12.0 or newer, or RACNN_CUDA=off.")
  endif()
  set(RACNN_CUDA_DESCRIPTION "not built: no nvcc was found in ${nvcc_searched}")
  message(STATUS "racnn_ops: CUDA library ${RACNN_CUDA_DESCRIPTION}")
  return()
endif()

execute_process(COMMAND ${RACNN_NVCC} --version OUTPUT_VARIABLE nvcc_version)
string(REGEX MATCH "release [0-9.]+, V([0-9.]+)" nvcc_version "${nvcc_version}")
set(nvcc_version ${CMAKE_MATCH_1})
if(NOT nvcc_version VERSION_GREATER_EQUAL 12.0)
  message(FATAL_ERROR
    "${RACNN_NVCC} is of CUDA '${nvcc_version}', which does not know C++20: "
    "set CUDA_HOME to a CUDA toolkit 12.0 or newer, or RACNN_CUDA=off.")
endif()

execute_process(COMMAND ${RACNN_NVCC} --list-gpu-code OUTPUT_VARIABLE known_architectures)
string(REGEX MATCHALL "[0-9]+" known_architectures "${known_architectures}")
foreach(architecture IN LISTS requested_architectures)
  string(REGEX MATCH "^[0-9]+" number ${architecture})
  if(NOT number IN_LIST known_architectures)
    list(JOIN known_architectures ", " known)
    message(FATAL_ERROR
      "TORCH_CUDA_ARCH_LIST=${RACNN_CUDA_ARCH_LIST} asks for compute capability ${number}, but ${RACNN_NVCC} "
      "(CUDA ${nvcc_version}) knows only ${known}: leave it out, or set CUDA_HOME to another toolkit.")
  endif()
endforeach()
if(RACNN_CUDA_ARCH_LIST STREQUAL "native")
  racnn_native_architectures("${known_architectures}" requested_architectures)
elseif(NOT requested_architectures)
  racnn_every_architecture("${known_architectures}" requested_architectures)
endif()

set(CMAKE_CUDA_COMPILER ${RACNN_NVCC})
set(CMAKE_CUDA_ARCHITECTURES ${requested_architectures})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # a shared libcudart would tie the library to torch's CUDA version
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it for nvcc
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

set(RACNN_WITH_CUDA ON)
if("$ENV{MAX_JOBS}" STREQUAL "")
  set(nvcc_threads 0)  # one a core: nvcc compiles the architectures of a file side by side
else()
  set(nvcc_threads $ENV{MAX_JOBS})
endif()
set(RACNN_NVCC_OPTIONS --threads=${nvcc_threads} --expt-relaxed-constexpr $<$<CONFIG:Debug>:-lineinfo>)
if(nvcc_version VERSION_GREATER_EQUAL 12.8)
  list(APPEND RACNN_NVCC_OPTIONS --compress-mode=size)
else()
  list(APPEND RACNN_NVCC_OPTIONS -Xfatbin=-compress-all)
endif()
if(RACNN_WERROR)
  list(APPEND RACNN_NVCC_OPTIONS --Werror=all-warnings)
endif()
list(JOIN requested_architectures " " architectures)
string(REGEX REPLACE "([0-9af]+)-real" "sm_\\1" architectures "${architectures}")
string(REGEX REPLACE "([0-9af]+)-virtual" "compute_\\1 (PTX)" architectures "${architectures}")
set(RACNN_CUDA_DESCRIPTION "CUDA ${nvcc_version} (static runtime), ${architectures}")
message(STATUS "racnn_ops: CUDA library with ${RACNN_CUDA_DESCRIPTION}")

# A CPU-only torch has no libtorch_cuda.so to link with. The stub lends its soname and the symbols that are used; at run
# time the library is loaded only where torch has already loaded the real one.
if(EXISTS ${RACNN_TORCH_DIR}/lib/libtorch_cuda.so)
  add_library(racnn::torch_cuda SHARED IMPORTED)
  set_target_properties(racnn::torch_cuda PROPERTIES
    IMPORTED_LOCATION ${RACNN_TORCH_DIR}/lib/libtorch_cuda.so)
else()
  add_library(racnn_torch_cuda_stub SHARED cmake/torch_cuda_stub.cpp)
  set_target_properties(racnn_torch_cuda_stub PROPERTIES
    OUTPUT_NAME torch_cuda LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/stub CXX_VISIBILITY_PRESET default)
  add_library(racnn::torch_cuda ALIAS racnn_torch_cuda_stub)
endif()
