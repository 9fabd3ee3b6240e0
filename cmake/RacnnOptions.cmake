# SPDX-License-Identifier: BSD-3-Clause
#
# What can be set, and the compile options that all targets share. Every default may come from the environment.

if(NOT CMAKE_BUILD_TYPE)
  if("$ENV{DEBUG}" MATCHES "^(|0)$")
    set(CMAKE_BUILD_TYPE Release)
  else()
    set(CMAKE_BUILD_TYPE Debug)
  endif()
endif()
set(RACNN_OUTPUT_DIR ${PROJECT_SOURCE_DIR}/racnn_ops CACHE PATH "Where the shared objects are put")
option(RACNN_WERROR "Treat warnings as errors (setup.py switches it off for users' compilers)" ON)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(RACNN_X86 ON)
else()
  set(RACNN_X86 OFF)
endif()

function(racnn_compile_options target)
  # __FILE__ would otherwise carry the builder's paths into error messages.
  set(warnings -Wall -Wextra $<$<BOOL:${RACNN_WERROR}>:-Werror>)
  set(options ${warnings}
    -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/= -fmacro-prefix-map=${RACNN_TORCH_INCLUDE_DIR}/=)
  string(REPLACE ";" "," host_options "${options}")
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:${options}>
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host_options}>")
  if(RACNN_X86)
    target_compile_definitions(${target} PRIVATE RACNN_X86)
  endif()
endfunction()

# A shared object of the package: found beside its siblings, complete, exporting only what is marked.
function(racnn_library target)
  racnn_compile_options(${target})
  # The C functions of torch 2.10 and no more: the library serves that and every later torch.
  target_compile_definitions(${target} PRIVATE TORCH_TARGET_VERSION=0x020a000000000000)
  target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL LINKER:-z,defs)
  target_link_libraries(${target} PRIVATE ${RACNN_OLDER_SYSTEM})
  set_target_properties(${target} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${RACNN_OUTPUT_DIR} BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH $ORIGIN)
endfunction()
