# SPDX-License-Identifier: BSD-3-Clause
#
# RACNN_GLIBC=2.28: libraries that run where glibc is as old as that (manylinux_2_28), built where it is newer. Calls are
# bound to the versions that the older one has (glibc_stubs.py). Of libstdc++ what is newer is compiled into the libraries:
# another one, a static copy or an older compiler's, would catch none of torch's exceptions, and torch none of theirs.
set(RACNN_GLIBC "$ENV{RACNN_GLIBC}" CACHE STRING "The oldest glibc to run with, such as 2.28; empty: this system's")
if("${RACNN_GLIBC}" STREQUAL "")
  return()
endif()
if(NOT RACNN_GLIBC MATCHES "^2[.][0-9]+$")
  message(FATAL_ERROR "RACNN_GLIBC is '${RACNN_GLIBC}': set it to a version such as 2.28.")
endif()
set(stubs ${PROJECT_BINARY_DIR}/glibc-${RACNN_GLIBC})
execute_process(
  COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/glibc_stubs.py ${CMAKE_CXX_COMPILER} ${RACNN_GLIBC} ${stubs}
  COMMAND_ERROR_IS_FATAL ANY)
file(GLOB stub_libraries ${stubs}/*.so.*[0-9])
add_library(racnn_older_libstdcxx STATIC ${CMAKE_CURRENT_LIST_DIR}/older_libstdcxx.cpp)
# All of them, needed or not: nvcc's static runtime, which needs others than the kernels do, is linked last.
set(RACNN_OLDER_SYSTEM racnn_older_libstdcxx LINKER:--push-state,--no-as-needed ${stub_libraries} LINKER:--pop-state)
