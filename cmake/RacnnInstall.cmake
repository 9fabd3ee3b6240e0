# SPDX-License-Identifier: BSD-3-Clause
#
# The C++ package: include/racnn_ops, lib and the files that find_package(racnn_ops) reads.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/racnn_ops)
configure_package_config_file(
  cmake/racnn_ops-config.cmake.in ${PROJECT_BINARY_DIR}/racnn_ops-config.cmake
  INSTALL_DESTINATION ${package_dir} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/racnn_ops-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS racnn_ops LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET racnn_ops_cuda)
  install(TARGETS racnn_ops_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(
  DIRECTORY csrc/
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/racnn_ops
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "*.cuh"
  PATTERN cpu EXCLUDE
  PATTERN torch EXCLUDE)
install(
  FILES ${PROJECT_BINARY_DIR}/racnn_ops-config.cmake ${PROJECT_BINARY_DIR}/racnn_ops-config-version.cmake
        cmake/RacnnTorch.cmake
  DESTINATION ${package_dir})
