// SPDX-License-Identifier: BSD-3-Clause
//
// The separable filters, on host and device: each a weight function f, its derivative and its radius. What
// an output reads by them is in filter_runs.h; the formulas are those of racnn_ops/_filters.py.
#pragma once

#include "geometry.h"

namespace racnn {

enum class Interpolation : int32_t { kNearest, kBilinear, kBicubic, kLanczos3, kArea };

template <typename T>
struct FilterValue {
  T value, slope;  // f(z), f'(z); at a kink the slope from the right
};

struct Hat {
  static constexpr int kRadius = 1;
  static constexpr double kIntegral = 1.0;

  template <typename T>
  static RACNN_HOST_DEVICE FilterValue<T> at(T z) {
    if (z < T(0)) return z < T(-1) ? FilterValue<T>{} : FilterValue<T>{T(1) + z, T(1)};
    return z < T(1) ? FilterValue<T>{T(1) - z, T(-1)} : FilterValue<T>{};
  }
};

// Keys' cubic convolution (1981) with A = -kQuarters / 4.
template <int kQuarters>
struct Cubic {
  static constexpr int kRadius = 2;
  static constexpr double kIntegral = 1.0;

  template <typename T>
  static RACNN_HOST_DEVICE FilterValue<T> at(T z) {
    constexpr T a = T(-kQuarters) / T(4);
    const T sign = z < T(0) ? T(-1) : T(1);
    z *= sign;
    if (z <= T(1)) {
      return {((a + 2) * z - (a + 3)) * z * z + T(1), sign * (T(3) * (a + 2) * z - T(2) * (a + 3)) * z};
    }
    if (!(z < T(2))) return {};
    return {((a * z - T(5) * a) * z + T(8) * a) * z - T(4) * a,
            sign * ((T(3) * a * z - T(10) * a) * z + T(8) * a)};
  }
};

// sinc(z) sinc(z / 3) = 3 sin(pi z) sin(pi z / 3) / (pi z)^2, and sin(3 t) = 3 sin t - 4 sin^3 t.
struct Lanczos3 {
  static constexpr int kRadius = 3;
  static constexpr double kIntegral = 0.9970553459543396;

  template <typename T>
  static RACNN_HOST_DEVICE FilterValue<T> at(T z) {
    if (!(z > T(-3) && z < T(3))) return {};
    constexpr T third = T(1.0471975511965976);  // pi / 3
    const T t = third * z, square = t * t;
    if (square < (sizeof(T) == 4 ? T(1e-2) : T(1e-4))) {  // where the quotient's slope would lose its digits
      constexpr T c2 = T(-5) / T(3), c4 = T(14) / T(15), c6 = T(-17) / T(63);
      return {T(1) + square * (c2 + square * (c4 + square * c6)),
              third * t * (T(2) * c2 + square * (T(4) * c4 + square * T(6) * c6))};
    }
    T sine, cosine;
#if defined(__CUDA_ARCH__)  // without the code for arguments of any size, which needs local memory
    if constexpr (sizeof(T) == 4) {
      sincospif(z / T(3), &sine, &cosine);
    } else {
      sincospi(z / T(3), &sine, &cosine);
    }
#else
    sine = std::sin(t);
    cosine = std::cos(t);
#endif
    const T triple = sine * (T(3) - T(4) * sine * sine);           // sin(3 t)
    const T triple_cosine = cosine * (T(1) - T(4) * sine * sine);  // cos(3 t)
    const T value = triple * sine / (T(3) * square);
    const T slope = (T(3) * triple_cosine * sine + triple * cosine) / (T(3) * square) - T(2) * value / t;
    return {value, third * slope};
  }
};

// Calls use(filter) with the one that stands for a plain or an antialiased interpolation.
template <typename Use>
RACNN_HOST_DEVICE void with_filter(Interpolation interpolation, bool antialias, const Use& use) {
  if (interpolation == Interpolation::kBicubic) {
    antialias ? use(Cubic<2>{}) : use(Cubic<3>{});
  } else if (antialias && interpolation == Interpolation::kLanczos3) {  // it has no plain form
    use(Lanczos3{});
  } else {
    use(Hat{});
  }
}

template <typename T>
RACNN_HOST_DEVICE T filter_radius(Interpolation interpolation) {
  T radius = T(Hat::kRadius);
  if (interpolation == Interpolation::kBicubic) radius = T(Cubic<2>::kRadius);
  if (interpolation == Interpolation::kLanczos3) radius = T(Lanczos3::kRadius);
  return radius;
}

}  // namespace racnn
