# SPDX-License-Identifier: BSD-3-Clause
#
# From what TORCH_CUDA_ARCH_LIST may say to what CMAKE_CUDA_ARCHITECTURES wants: 90-real is machine code for compute
# capability 9.0, 90-virtual is PTX, which GPUs of that or a later one compile for themselves at first use.

# Built by default, as far as nvcc knows them.
set(RACNN_EVERY_ARCHITECTURE 75 80 86 89 90 100 120)

# "8.0;9.0+PTX" or "8.0 9.0a+PTX" -> 80-real;90a-real;90a-virtual. "native", "" -> "": they depend on nvcc.
function(racnn_read_architectures names result)
  set(architectures "")
  string(REGEX REPLACE "[; ,]+" ";" names "${names}")
  if(NOT names STREQUAL "native")
    foreach(name IN LISTS names)
      if(NOT name MATCHES "^([0-9]+)[.]([0-9][af]?)([+]PTX)?$")
        message(FATAL_ERROR
          "TORCH_CUDA_ARCH_LIST contains '${name}': set it to architectures such as '8.0;9.0+PTX', "
          "to native and nothing else, or unset it.")
      endif()
      list(APPEND architectures ${CMAKE_MATCH_1}${CMAKE_MATCH_2}-real)
      if(CMAKE_MATCH_3)
        list(APPEND architectures ${CMAKE_MATCH_1}${CMAKE_MATCH_2}-virtual)
      endif()
    endforeach()
  endif()
  set(${result} ${architectures} PARENT_SCOPE)
endfunction()

# All of the above that nvcc knows, and PTX of the newest, for GPUs that come later.
function(racnn_every_architecture known result)
  set(architectures "")
  foreach(architecture IN LISTS RACNN_EVERY_ARCHITECTURE)
    if(architecture IN_LIST known)
      list(APPEND architectures ${architecture}-real)
      set(newest ${architecture})
    endif()
  endforeach()
  set(${result} ${architectures} ${newest}-virtual PARENT_SCOPE)
endfunction()

# Those of this machine's GPUs, and PTX of the newest; for a GPU that nvcc does not know, the next older one that it does.
# Where there is no such GPU, the oldest of the above: every GPU that a wheel serves can run its PTX.
function(racnn_native_architectures known result)
  find_program(nvidia_smi nvidia-smi NO_CACHE)
  set(lines "")
  if(nvidia_smi)
    execute_process(COMMAND ${nvidia_smi} --query-gpu=compute_cap --format=csv,noheader
      OUTPUT_VARIABLE lines ERROR_QUIET)
    string(REPLACE "\n" ";" lines "${lines}")
  endif()
  list(SORT known COMPARE NATURAL)
  set(numbers "")
  foreach(line IN LISTS lines)
    if(line MATCHES "^([0-9]+)[.]([0-9])$")  # and no message about a missing driver
      set(number "")
      foreach(candidate IN LISTS known)
        if(NOT candidate GREATER ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
          set(number ${candidate})
        endif()
      endforeach()
      list(APPEND numbers ${number})
    endif()
  endforeach()
  if(NOT numbers)
    foreach(architecture IN LISTS RACNN_EVERY_ARCHITECTURE)
      if(architecture IN_LIST known AND NOT numbers)
        set(numbers ${architecture})
      endif()
    endforeach()
  endif()
  list(REMOVE_DUPLICATES numbers)
  list(SORT numbers COMPARE NATURAL)
  list(GET numbers -1 newest)
  list(TRANSFORM numbers APPEND -real)
  set(${result} ${numbers} ${newest}-virtual PARENT_SCOPE)
endfunction()
