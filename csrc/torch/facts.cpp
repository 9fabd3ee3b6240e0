// SPDX-License-Identifier: BSD-3-Clause
//
// What the library says of itself, for racnn_ops._library: plain C functions, for every Python.
#include "../problems.h"
#include "build_info.h"
#include "copies.h"

// As this library found the process.
static const std::string earlier = racnn::earlier_copy();

#define RACNN_FACT extern "C" __attribute__((visibility("default"))) const char*

RACNN_FACT racnn_build_info() { return RACNN_BUILD_INFO; }

RACNN_FACT racnn_cuda_build() { return RACNN_CUDA_BUILD; }

// The file whose operators they are, where it is another than this one.
RACNN_FACT racnn_earlier_copy() { return earlier.c_str(); }

// "image crop", a line for each pair of dtypes that has a kernel.
RACNN_FACT racnn_fused_pairs() {
#define RACNN_NAME_Float "float32"
#define RACNN_NAME_Double "float64"
#define RACNN_NAME_Half "float16"
#define RACNN_NAME_BFloat16 "bfloat16"
#define RACNN_NAME_Byte "uint8"
#define RACNN_LINE(IMAGE, CROP) RACNN_NAME_##IMAGE " " RACNN_NAME_##CROP "\n"
  return RACNN_FUSED_PAIRS(RACNN_LINE);
}
