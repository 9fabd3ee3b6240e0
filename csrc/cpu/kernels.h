// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU kernels as the rest of the program sees them: each works on units [begin, end) and exists once per
// instruction set. `select` picks the one for this machine.
#pragma once

#include "../crop.h"
#include "half.h"
#include "units.h"

namespace racnn::cpu {

// What a unit of tap_grad adds up: [h, 2] for the rows, of which it has some, and [w, 2] for the columns.
RACNN_HOST_DEVICE int64_t tap_grad_sums(const CropShape& s) {
  return 2 * (int64_t(s.out_height) + s.out_width);
}

// Thrown by a kernel: so much memory could not be had. No class with functions, as those of std::bad_alloc,
// which the linker would share between instruction sets.
struct OutOfMemory {
  size_t bytes;
};

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that machine, build and RACNN_CPU_CAPABILITY (baseline, avx2, avx512) allow.
Isa isa();

template <typename Problem>
using Kernel = void (*)(const Problem&, const Units&, int64_t begin, int64_t end);

#define RACNN_DECLARE_KERNELS(NAMESPACE)                                                   \
  namespace NAMESPACE {                                                                    \
  template <typename Image, typename Out>                                                  \
  void forward(const ForwardProblem<Image, Out>&, const Units&, int64_t, int64_t);         \
  template <typename Image, typename Grad>                                                 \
  void window_grad(const WindowGradProblem<Image, Grad>&, const Units&, int64_t, int64_t); \
  template <typename Grad, typename Image>                                                 \
  void image_grad(const ImageGradProblem<Grad, Image>&, const Units&, int64_t, int64_t);   \
  template <typename Grad>                                                                 \
  void boxcar_grad(const BoxcarProblem<Grad>&, const Units&, int64_t, int64_t);            \
  template <typename T>                                                                    \
  void tap_crop(const TapCropProblem<T>&, const Units&, int64_t, int64_t);                 \
  template <typename T>                                                                    \
  void tap_image_grad(const TapImageGradProblem<T>&, const Units&, int64_t, int64_t);      \
  template <typename T>                                                                    \
  void tap_grad(const TapGradProblem<T>&, const Units&, int64_t, int64_t);                 \
  }

RACNN_DECLARE_KERNELS(baseline)
#if defined(RACNN_X86)
RACNN_DECLARE_KERNELS(avx2)
RACNN_DECLARE_KERNELS(avx512)
#define RACNN_SELECT(...)                                       \
  (isa() == Isa::kAvx512 ? Kernel<Problem>(avx512::__VA_ARGS__) \
   : isa() == Isa::kAvx2 ? Kernel<Problem>(avx2::__VA_ARGS__)   \
                         : Kernel<Problem>(baseline::__VA_ARGS__))
#else
#define RACNN_SELECT(...) Kernel<Problem>(baseline::__VA_ARGS__)
#endif

template <typename Image, typename Out>
Kernel<ForwardProblem<Image, Out>> select(const ForwardProblem<Image, Out>&) {
  using Problem = ForwardProblem<Image, Out>;
  return RACNN_SELECT(forward<Image, Out>);
}

template <typename Image, typename Grad>
Kernel<WindowGradProblem<Image, Grad>> select(const WindowGradProblem<Image, Grad>&) {
  using Problem = WindowGradProblem<Image, Grad>;
  return RACNN_SELECT(window_grad<Image, Grad>);
}

template <typename Grad, typename Image>
Kernel<ImageGradProblem<Grad, Image>> select(const ImageGradProblem<Grad, Image>&) {
  using Problem = ImageGradProblem<Grad, Image>;
  return RACNN_SELECT(image_grad<Grad, Image>);
}

template <typename Grad>
Kernel<BoxcarProblem<Grad>> select(const BoxcarProblem<Grad>&) {
  using Problem = BoxcarProblem<Grad>;
  return RACNN_SELECT(boxcar_grad<Grad>);
}

template <typename T>
Kernel<TapCropProblem<T>> select(const TapCropProblem<T>&) {
  using Problem = TapCropProblem<T>;
  return RACNN_SELECT(tap_crop<T>);
}

template <typename T>
Kernel<TapImageGradProblem<T>> select(const TapImageGradProblem<T>&) {
  using Problem = TapImageGradProblem<T>;
  return RACNN_SELECT(tap_image_grad<T>);
}

template <typename T>
Kernel<TapGradProblem<T>> select(const TapGradProblem<T>&) {
  using Problem = TapGradProblem<T>;
  return RACNN_SELECT(tap_grad<T>);
}

}  // namespace racnn::cpu
