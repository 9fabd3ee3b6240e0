# SPDX-License-Identifier: BSD-3-Clause
#
# The CPU kernels without torch: linking racnn_kernels brings them once per instruction set, and csrc/cpu/isa.cpp, which
# chooses at run time.
set(racnn_cpu_sources ${CMAKE_CURRENT_LIST_DIR}/../csrc/cpu)
add_library(racnn_kernels INTERFACE)
target_sources(racnn_kernels INTERFACE ${racnn_cpu_sources}/isa.cpp)

function(racnn_kernels isa)
  add_library(racnn_kernels_${isa} OBJECT ${racnn_cpu_sources}/kernels.cpp)
  racnn_compile_options(racnn_kernels_${isa})
  target_compile_definitions(racnn_kernels_${isa} PRIVATE RACNN_ISA=${isa})
  # Fused multiply-adds wherever the machine has them, with every compiler; nothing here reads errno or FP traps.
  # Without optimisation the linker would let all of them share one copy of the standard library's functions.
  target_compile_options(racnn_kernels_${isa} PRIVATE
    -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wno-psabi $<$<CONFIG:Debug>:-O1> ${ARGN})
  target_sources(racnn_kernels INTERFACE $<TARGET_OBJECTS:racnn_kernels_${isa}>)
endfunction()

racnn_kernels(baseline)
if(RACNN_X86)
  racnn_kernels(avx2 -mavx2 -mfma -mf16c)
  # GCC 12 finds uninitialised values in its own AVX-512 intrinsics (GCC bug 105593).
  racnn_kernels(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized -Wno-maybe-uninitialized>)
endif()
