// SPDX-License-Identifier: BSD-3-Clause
//
// The window geometry without torch: where two outputs sample a window that covers four pixels.
#include <racnn_ops/problems.h>

#include <cstdio>

int main() {
  const racnn::Axis<float> axis = racnn::make_axis(2.0f, 2.0f, 4, 2, racnn::Boundary::kZeros, 0.0f);
  for (int32_t j = 0; j < axis.out; ++j) {
    const racnn::Tap<float> tap = racnn::make_tap(axis, j);
    std::printf("%d*%g+%d*%g\n", tap.lower, tap.w_lower, tap.upper, tap.w_upper);
  }
}
