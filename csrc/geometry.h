// SPDX-License-Identifier: BSD-3-Clause
//
// The geometry of a window, on host and device: the only place where it is computed.
//
// A window is axis-aligned, so sampling it separates into one *tap* table per axis. Output j of `out`
// along an axis of `size` pixels samples at
//
//     s_j = centre + half * u_j,   u_j = (2j + 1)/out - 1,   p_j = s_j - 1/2
//
// and reads the pixels floor(p_j) and floor(p_j) + 1 (pixel i covers [i, i+1), its centre is i + 1/2).
// The mask, the boundary and all derivatives are only other entries of the same tables. The kernels, on
// the CPU and on the GPU, contract images with these tables and know nothing else about geometry.
#pragma once

#include <cmath>
#include <cstdint>

// Always inlined: the CPU kernels are compiled once per instruction set, and the linker must not let one of
// them use another's copy. RACNN_INLINED: lambdas, of which whether they are depends on what else is
// compiled.
#define RACNN_INLINE inline __attribute__((always_inline))

#if defined(__CUDACC__)
#define RACNN_HOST_DEVICE __host__ __device__ __forceinline__
#define RACNN_INLINED
#else
#define RACNN_HOST_DEVICE RACNN_INLINE
#define RACNN_INLINED __attribute__((always_inline))
#endif

namespace racnn {

// Of an image or crop. A larger one could not be indexed by int32 after the window's float arithmetic.
constexpr int64_t kMaxSide = int64_t(1) << 30;

enum class Boundary : int32_t {
  kZeros,   // pixels outside the image are zero
  kBorder,  // a position outside reads the edge pixel
  kClip,    // the window is clipped to the image first; what is still outside reads the edge pixel
  kWindow,  // only the window's own pixels are read, as border reads the image's (filter_runs.h)
};

// Index of a tap that lies outside the image under Boundary::kZeros: it reads as zero, its weight is zero.
constexpr int32_t kOutside = -1;

// One axis of one window, with the derivatives of its centre and half side with respect to the
// window's own (they differ from 1 and 0 only where the window is clipped).
template <typename T>
struct Axis {
  T centre;           // pixels
  T half;             // pixels, >= 0
  T centre_d_centre;  // d centre / d tx
  T centre_d_half;    // d centre / d tl
  T half_d_centre;    // d half / d tx
  T half_d_half;      // d half / d tl
  T steepness;        // of the mask, per pixel; 0: no mask
  int32_t size;       // input pixels
  int32_t out;        // output samples
  bool clamped;       // positions are clamped to the image (kBorder, kClip)
  T inverse_out;      // 1 / out
};

// A derivative with respect to the window's centre and half side along an axis.
template <typename T>
struct AxisGrad {
  T centre, half;
};

// What output j reads along an axis: sum over the two entries of weight * pixel[index].
template <typename T>
struct Tap {
  int32_t lower, upper;  // pixel indices in [0, size), or kOutside
  T w_lower, w_upper;    // weights
};

// The derivatives of a tap's weights with respect to the window's centre and half side.
template <typename T>
struct TapGrad {
  T centre_lower, centre_upper;
  T half_lower, half_upper;
};

// The window's numbers for (x, y): (tx, tl, ty, tl) or (tx, tw, ty, th); or their derivatives.
template <typename T>
struct Window {
  T x, half_x, y, half_y;
};

constexpr int kAxisSums = 4;  // the numbers of a Window

// `values` is 3 (tx, ty, tl), 4 (tx, ty, tw, th) or 5 (tx, ty, tw, whether the crop is mirrored, th).
template <typename T>
RACNN_HOST_DEVICE Window<T> load_window(const T* window, int values) {
  return {window[0], window[2], window[1], window[values - 1]};
}

// 0, or NaN if one of the numbers is not finite: x - x is NaN for NaN and for both infinities.
template <typename T>
RACNN_HOST_DEVICE T zero_if_finite(const Window<T>& w) {
  return (w.x - w.x) + (w.half_x - w.half_x) + (w.y - w.y) + (w.half_y - w.half_y);
}

template <typename T>
RACNN_HOST_DEVICE bool is_finite(const Window<T>& w) {
  return zero_if_finite(w) == T(0);
}

// The gradient of a window's `values` numbers from those along its axes: tl moves both half sides. NaN for a
// window that is not finite.
template <typename T, typename Sum>
RACNN_HOST_DEVICE void store_window_grad(const Window<T>& window, const Window<Sum>& axes, int32_t values,
                                         T* grad) {
  const Sum zero = zero_if_finite(window);
  grad[0] = T(axes.x + zero);
  grad[1] = T(axes.y + zero);
  grad[2] = T((values == 3 ? axes.half_x + axes.half_y : axes.half_x) + zero);
  if (values == 4) grad[3] = T(axes.half_y + zero);
}

template <typename T>
RACNN_HOST_DEVICE T lesser(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
RACNN_HOST_DEVICE T greater(T a, T b) {
  return a > b ? a : b;
}

template <typename T>
RACNN_HOST_DEVICE T clamp_to(T value, T low, T high) {  // NaN becomes `low`
  const T raised = value > low ? value : low;
  return raised < high ? raised : high;
}

// `half <= 0` degenerates to the centre point, with the derivatives of half = 0.
template <typename T>
RACNN_HOST_DEVICE Axis<T> make_axis(T centre, T half, int32_t size, int32_t out, Boundary boundary,
                                    T steepness) {
  half = half > T(0) ? half : T(0);
  Axis<T> axis{centre,       half, T(1), T(0), T(0), T(1), steepness, size, out, boundary != Boundary::kZeros,
               T(1) / T(out)};
  if (boundary == Boundary::kClip) {
    const T extent = T(size);
    const T low = centre - half, high = centre + half;
    const bool low_inside = low >= T(0) && low <= extent;
    const bool high_inside = high >= T(0) && high <= extent;
    if (!(low_inside && high_inside)) {
      const T clipped_low = clamp_to(low, T(0), extent), clipped_high = clamp_to(high, T(0), extent);
      axis.centre = T(0.5) * (clipped_low + clipped_high);
      axis.half = T(0.5) * (clipped_high - clipped_low);
      const T d_low = low_inside ? T(0.5) : T(0), d_high = high_inside ? T(0.5) : T(0);
      axis.centre_d_centre = axis.half_d_half = d_low + d_high;
      axis.centre_d_half = axis.half_d_centre = d_high - d_low;
    }
  }
  return axis;
}

// 2j + 1 - out, exactly before it is rounded.
template <typename T>
RACNN_HOST_DEVICE T offset_numerator(int32_t j, int32_t out) {
  return T((j - out) + j + 1);
}

// u_j in (-1, 1), the numerator over `out`: an exact integer, so there is one rounding. The quotient is the
// division's to the bit, for a third of its cost (Markstein, "IA-64 and Elementary Functions", 2000, chapter
// 8).
template <typename T>
RACNN_HOST_DEVICE T sample_offset(const Axis<T>& axis, int32_t j) {
  const T numerator = offset_numerator<T>(j, axis.out), near = numerator * axis.inverse_out;
  return std::fma(std::fma(-near, T(axis.out), numerator), axis.inverse_out, near);
}

// p_j as the formula gives it; for finite windows infinite at worst.
template <typename T>
RACNN_HOST_DEVICE T raw_position(const Axis<T>& axis, int32_t j) {
  return std::fma(axis.half, sample_offset(axis, j), axis.centre) - T(0.5);
}

// A position in two parts: float32 holds every whole number up to 2^24 only, sides may be longer.
template <typename T>
struct Position {
  int32_t pixel;  // floor(p)
  T beyond;       // p - floor(p)
};

// p_j, limited to [-2, size] (what lies farther out reads nothing more) or, where the axis is clamped,
// to the pixel centres [0, size - 1]. Never NaN, non-decreasing in j.
template <typename T>
RACNN_HOST_DEVICE Position<T> sample_position(const Axis<T>& axis, int32_t j) {
  const int32_t last = axis.clamped ? axis.size - 1 : axis.size;
  const T p = clamp_to(raw_position(axis, j), axis.clamped ? T(0) : T(-2), T(kMaxSide));
  const T whole = std::floor(p);
  const int32_t pixel = int32_t(whole);
  return pixel < last ? Position<T>{pixel, p - whole} : Position<T>{last, T(0)};
}

template <typename T>
RACNN_HOST_DEVICE int32_t lower_pixel(const Axis<T>& axis, int32_t j) {
  return sample_position(axis, j).pixel;
}

template <typename T>
RACNN_HOST_DEVICE T sigmoid(T z) {
  return T(1) / (T(1) + std::exp(-z));
}

// The soft boxcar of RA-CNN (paper, equations 5 and 6) along one axis at the centre of pixel i.
template <typename T>
RACNN_HOST_DEVICE T mask_value(const Axis<T>& axis, int32_t i) {
  const T x = T(i) + T(0.5);
  return sigmoid(axis.steepness * (x - (axis.centre - axis.half))) -
         sigmoid(axis.steepness * (x - (axis.centre + axis.half)));
}

template <typename T>
RACNN_HOST_DEVICE AxisGrad<T> mask_grad(const Axis<T>& axis, int32_t i) {
  const T x = T(i) + T(0.5);
  const T low = sigmoid(axis.steepness * (x - (axis.centre - axis.half)));
  const T high = sigmoid(axis.steepness * (x - (axis.centre + axis.half)));
  const T d_low = -axis.steepness * low * (T(1) - low);    // d mask / d (centre - half)
  const T d_high = axis.steepness * high * (T(1) - high);  // d mask / d (centre + half)
  const T d_centre = d_low + d_high, d_half = d_high - d_low;
  return {d_centre * axis.centre_d_centre + d_half * axis.half_d_centre,
          d_centre * axis.centre_d_half + d_half * axis.half_d_half};
}

// A tap before the mask: indices and the linear interpolation's weights.
template <typename T>
RACNN_HOST_DEVICE Tap<T> linear_tap(const Axis<T>& axis, int32_t j) {
  const Position<T> p = sample_position(axis, j);
  const int32_t last = axis.size - 1;
  int32_t lower = p.pixel, upper = lower + 1;
  T w_lower = T(1) - p.beyond, w_upper = p.beyond;
  if (axis.clamped) {
    upper = upper > last ? last : upper;
  } else {
    if (lower < 0 || lower > last) {
      lower = kOutside;
      w_lower = T(0);
    }
    if (upper < 0 || upper > last) {
      upper = kOutside;
      w_upper = T(0);
    }
  }
  return {lower, upper, w_lower, w_upper};
}

template <typename T>
RACNN_HOST_DEVICE Tap<T> make_tap(const Axis<T>& axis, int32_t j) {
  Tap<T> tap = linear_tap(axis, j);
  if (axis.steepness > T(0)) {
    tap.w_lower *= mask_value(axis, tap.lower);  // outside: the weight is zero already
    tap.w_upper *= mask_value(axis, tap.upper);
  }
  return tap;
}

// d p_j / d (the window's centre, its half side); zero where the position is clamped to the image. At a kink
// of the interpolation (p_j on a pixel centre) the taps' derivatives are those from the right.
template <typename T>
RACNN_HOST_DEVICE AxisGrad<T> position_grad(const Axis<T>& axis, int32_t j) {
  const bool inside = raw_position(axis, j) >= T(0) && sample_position(axis, j).pixel < axis.size - 1;
  if (axis.clamped && !inside) return {T(0), T(0)};
  const T u = sample_offset(axis, j);
  return {axis.centre_d_centre + axis.half_d_centre * u, axis.centre_d_half + axis.half_d_half * u};
}

// The weights' derivatives, by the product rule with the mask. Unmasked they are -1 and +1 times
// position_grad.
template <typename T>
RACNN_HOST_DEVICE TapGrad<T> make_tap_grad(const Axis<T>& axis, int32_t j) {
  const Tap<T> tap = linear_tap(axis, j);
  const AxisGrad<T> moved = position_grad(axis, j);
  const T d_lower = tap.lower == kOutside ? T(0) : T(-1);
  const T d_upper = tap.upper == kOutside ? T(0) : T(1);
  TapGrad<T> grad{d_lower * moved.centre, d_upper * moved.centre, d_lower * moved.half, d_upper * moved.half};
  if (axis.steepness > T(0)) {
    const T m_lower = mask_value(axis, tap.lower), m_upper = mask_value(axis, tap.upper);
    const AxisGrad<T> dm_lower = mask_grad(axis, tap.lower), dm_upper = mask_grad(axis, tap.upper);
    grad.centre_lower = grad.centre_lower * m_lower + tap.w_lower * dm_lower.centre;
    grad.centre_upper = grad.centre_upper * m_upper + tap.w_upper * dm_upper.centre;
    grad.half_lower = grad.half_lower * m_lower + tap.w_lower * dm_lower.half;
    grad.half_upper = grad.half_upper * m_upper + tap.w_upper * dm_upper.half;
  }
  return grad;
}

}  // namespace racnn
