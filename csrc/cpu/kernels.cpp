// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled once per instruction set, with RACNN_ISA naming the namespace (see kernels.h and CMakeLists.txt).
#include "kernels.h"

#include "boxcar_grad.h"
#include "forward.h"
#include "image_grad.h"
#include "tap_crop.h"
#include "window_grad.h"

namespace racnn::cpu::RACNN_ISA {

#define RACNN_FORWARD(IMAGE, OUT) \
  template void forward(const ForwardProblem<IMAGE, OUT>&, const Units&, int64_t, int64_t);
#define RACNN_WINDOW_GRAD(IMAGE, GRAD) \
  template void window_grad(const WindowGradProblem<IMAGE, GRAD>&, const Units&, int64_t, int64_t);
#define RACNN_IMAGE_GRAD(IMAGE, GRAD) \
  template void image_grad(const ImageGradProblem<GRAD, IMAGE>&, const Units&, int64_t, int64_t);
#define RACNN_BOXCAR_GRAD(GRAD) \
  template void boxcar_grad(const BoxcarProblem<GRAD>&, const Units&, int64_t, int64_t);
#define RACNN_TAP_CROP(T)                                                                      \
  template void tap_crop(const TapCropProblem<T>&, const Units&, int64_t, int64_t);            \
  template void tap_image_grad(const TapImageGradProblem<T>&, const Units&, int64_t, int64_t); \
  template void tap_grad(const TapGradProblem<T>&, const Units&, int64_t, int64_t);

// The fused pairs of glue.h.
#define RACNN_FLOATING_PAIRS(X) \
  X(float, float)               \
  X(float, Half)                \
  X(float, BFloat16)            \
  X(Half, Half)                 \
  X(Half, float)                \
  X(BFloat16, BFloat16)         \
  X(BFloat16, float)            \
  X(double, double)

#define RACNN_UINT8_PAIRS(X) \
  X(uint8_t, float)          \
  X(uint8_t, Half)           \
  X(uint8_t, BFloat16)

RACNN_FLOATING_PAIRS(RACNN_FORWARD)
RACNN_UINT8_PAIRS(RACNN_FORWARD)
RACNN_FORWARD(uint8_t, uint8_t)
RACNN_FLOATING_PAIRS(RACNN_WINDOW_GRAD)
RACNN_UINT8_PAIRS(RACNN_WINDOW_GRAD)
RACNN_FLOATING_PAIRS(RACNN_IMAGE_GRAD)
RACNN_BOXCAR_GRAD(float)
RACNN_BOXCAR_GRAD(Half)
RACNN_BOXCAR_GRAD(BFloat16)
RACNN_BOXCAR_GRAD(double)
RACNN_TAP_CROP(float)
RACNN_TAP_CROP(double)

}  // namespace racnn::cpu::RACNN_ISA
