// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled once per instruction set, with RACNN_ISA naming the namespace (see kernels.h and CMakeLists.txt).
#include "kernels.h"

#include "boxcar_grad.h"
#include "forward.h"
#include "image_grad.h"
#include "run_window_grad.h"
#include "window_grad.h"

namespace racnn::cpu::RACNN_ISA {

// Item by item: what `compute` gets are units of one crop or image, and scratch memory for them.
template <typename Problem>
void run_units(const Problem& problem, const Units& units, int64_t begin, int64_t end) {
  struct Scratch {
    Arena& arena = scratch();
    ~Scratch() { arena.clear(); }
  };
  while (begin < end) {
    const int64_t item_end = (begin / units.per_item() + 1) * units.per_item();
    const int64_t stop = lesser(end, item_end);
    compute(problem, Scratch{}.arena, units, begin, stop);
    begin = stop;
  }
}

using Float = float;
using Double = double;
using Byte = uint8_t;

#define RACNN_KERNEL(...) template void run_units(const __VA_ARGS__&, const Units&, int64_t, int64_t);
// With taps of two entries and with runs.
#define RACNN_BOTH(PROBLEM, FIRST, SECOND, IMAGE) \
  RACNN_KERNEL(PROBLEM<FIRST, SECOND>)            \
  RACNN_KERNEL(PROBLEM<FIRST, SECOND, FilterSpec<Accumulate<IMAGE>>>)
#define RACNN_FORWARD(IMAGE, CROP) RACNN_BOTH(ForwardProblem, IMAGE, CROP, IMAGE)
#define RACNN_WINDOW_GRAD(IMAGE, CROP) RACNN_BOTH(WindowGradProblem, IMAGE, CROP, IMAGE)
#define RACNN_IMAGE_GRAD(IMAGE, CROP) RACNN_BOTH(ImageGradProblem, CROP, IMAGE, IMAGE)

RACNN_FUSED_PAIRS(RACNN_FORWARD)
RACNN_FLOATING_PAIRS(RACNN_WINDOW_GRAD)
RACNN_BYTE_PAIRS(RACNN_WINDOW_GRAD)
RACNN_FLOATING_PAIRS(RACNN_IMAGE_GRAD)
RACNN_KERNEL(BoxcarProblem<float>)
RACNN_KERNEL(BoxcarProblem<Half>)
RACNN_KERNEL(BoxcarProblem<BFloat16>)
RACNN_KERNEL(BoxcarProblem<double>)
RACNN_KERNEL(TapForwardProblem<float>)
RACNN_KERNEL(TapForwardProblem<double>)
RACNN_KERNEL(TapImageGradProblem<float>)
RACNN_KERNEL(TapImageGradProblem<double>)

}  // namespace racnn::cpu::RACNN_ISA
