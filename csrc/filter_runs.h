// SPDX-License-Identifier: BSD-3-Clause
//
// Taps of any length, on host and device: what output j reads along an axis is a *run* of neighbouring
// pixels, each with its weight and the weight's derivatives. Outputs are sigma = 2 half / out pixels apart,
// the centre of pixel x is c_x = x + 1/2; by a filter f
//
//     plain         f(s_j - c_x); what lies outside reads zero or, limited, the edge pixel
//     antialiased   f((s_j - c_x) / rho) / N, rho = max(1, sigma), N the sum over all whole positions or,
//                   limited, over the pixels that may be read
//     area          the mean of the bilinear interpolant over [s_j - r, s_j + r], r = sigma / 2
#pragma once

#include "filters.h"

namespace racnn {

// One axis of one window with what runs need besides.
template <typename T>
struct FilterAxis {
  Axis<T> axis;
  Interpolation interpolation;
  bool antialias;
  int32_t first, last;  // pixels that may be read
  bool limited;         // nothing lies beyond them; else zeros do
  T width;              // rho; r of area; otherwise 1
  T inverse_width;
  AxisGrad<T> width_grad;
  int64_t reach;  // how far from its position a run may reach, in pixels, on each side
};

// Below this half width a footprint is a point: the mean is the interpolant itself, to rounding.
constexpr double kPoint = 1e-3;

template <typename T>
RACNN_HOST_DEVICE FilterAxis<T> make_filter_axis(const Axis<T>& axis, Interpolation interpolation,
                                                 bool antialias, Boundary boundary) {
  constexpr T kFarthest = T(4) * T(kMaxSide);
  FilterAxis<T> f{axis, interpolation, antialias,    0, axis.size - 1, axis.clamped,
                  T(1), T(1),          {T(0), T(0)}, 0};
  f.axis.centre = clamp_to(axis.centre, -kFarthest, kFarthest);
  f.axis.half = clamp_to(axis.half, T(0), kFarthest);
  if (boundary == Boundary::kWindow) {
    const T most = T(axis.size - 1);
    f.first = int32_t(clamp_to(std::floor(f.axis.centre - f.axis.half), T(0), most));
    f.last = int32_t(clamp_to(std::ceil(f.axis.centre + f.axis.half) - T(1), T(f.first), most));
  }
  const T sigma = T(2) * f.axis.half / T(axis.out);
  T change = T(0);  // d width / d half, times out
  if (antialias && sigma > T(1)) {
    f.width = sigma;
    change = T(2);
  } else if (interpolation == Interpolation::kArea) {
    f.width = T(0.5) * sigma;
    change = T(1);
  }
  f.inverse_width = T(1) / f.width;
  // From a position in pixel p to the centre of p + n it is more than n - 1/2.
  if (interpolation == Interpolation::kArea) {
    f.reach = int64_t(f.width + T(1.5));
  } else if (interpolation != Interpolation::kNearest) {
    f.reach = int64_t(filter_radius<T>(interpolation) * f.width + T(0.5));
  }
  change *= axis.inverse_out;
  f.width_grad = {change * axis.half_d_centre, change * axis.half_d_half};
  return f;
}

// Whether the runs are the two entries of `axis` itself: nothing is reduced, nor lies beyond what may be
// read, and no weight is 0, which the kernels of two entries read and those of runs do not.
template <typename T>
RACNN_HOST_DEVICE bool has_two_entries(const FilterAxis<T>& f) {
  bool has = f.interpolation == Interpolation::kBilinear && f.width == T(1) && f.first == 0 &&
             f.last == f.axis.size - 1;
  for (int32_t j = 0; has && j < f.axis.out; ++j) {
    const Position<T> p = sample_position(f.axis, j);
    has = p.beyond != T(0) || p.pixel < -1 || p.pixel >= f.axis.size;
  }
  return has;
}

// A pixel of a run. The derivatives are by the window's centre and half side along the axis.
template <typename T>
struct RunEntry {
  T weight;
  AxisGrad<T> grad;
};

// A weight with its derivatives by the position and by the filter's width.
template <typename T>
struct RawEntry {
  T weight, by_position, by_width;

  RACNN_HOST_DEVICE void add(const RawEntry& other) {
    weight += other.weight;
    by_position += other.by_position;
    by_width += other.by_width;
  }
};

// What normalises the entries of a run, whose sum is N: 1 / N, and the derivatives of log N.
template <typename T>
struct RunNorm {
  T scale, by_position, by_width;
};

// s_j as a whole pixel and the rest, with its derivatives.
template <typename T>
struct RunPosition {
  int64_t pixel;
  T beyond;
  AxisGrad<T> grad;
};

template <typename T>
RACNN_HOST_DEVICE RunPosition<T> run_position(const FilterAxis<T>& f, int32_t j) {
  if (f.interpolation == Interpolation::kNearest) {
    // By the product first: where positions lie on pixels' edges, as at a reduction by 2, it is exact.
    const T s = f.axis.centre + f.axis.half * offset_numerator<T>(j, f.axis.out) / T(f.axis.out);
    const int64_t pixel = int64_t(std::floor(s));
    return {f.limited ? clamp_to<int64_t>(pixel, f.first, f.last) : pixel, T(0), {T(0), T(0)}};
  }
  const T u = sample_offset(f.axis, j);
  T s = std::fma(f.axis.half, u, f.axis.centre);
  AxisGrad<T> grad{f.axis.centre_d_centre + f.axis.half_d_centre * u,
                   f.axis.centre_d_half + f.axis.half_d_half * u};
  if (f.antialias && f.limited) {
    const T low = T(f.first), high = T(f.last + 1);
    if (!(s >= low && s <= high)) grad = {T(0), T(0)};
    s = clamp_to(s, low, high);
  }
  const T whole = std::floor(s);
  return {int64_t(whole), s - whole, grad};
}

// The most entries that a run of this axis can have.
template <typename T>
RACNN_HOST_DEVICE int64_t longest_run(const FilterAxis<T>& f) {
  return lesser<int64_t>(int64_t(f.last) - f.first + 1, 2 * f.reach + 2);
}

// The mean over [z - r, z + r] of a function whose slope changes by `jumps` at `kinks`, from its own value.
template <typename T, int kKinks>
RACNN_HOST_DEVICE T mean_around(T value, T z, T r, const T (&kinks)[kKinks], const T (&jumps)[kKinks]) {
  for (int k = 0; k < kKinks; ++k) {
    const T inside = r - std::fabs(z - kinks[k]);
    if (inside > T(0)) value += jumps[k] * inside * inside / (T(4) * r);
  }
  return value;
}

// The integral of the hat from 0 to z.
template <typename T>
RACNN_HOST_DEVICE T hat_integral(T z) {
  const T a = std::fabs(z) < T(1) ? std::fabs(z) : T(1), half = a - T(0.5) * a * a;
  return z < T(0) ? -half : half;
}

// What of the footprint [z - r, z + r] around a pixel's centre falls to it.
template <typename T>
RACNN_HOST_DEVICE RawEntry<T> area_entry(T z, T r) {
  const T high = Hat::at(z + r).value, low = Hat::at(z - r).value;
  T weight;
  if (r < T(0.5)) {  // without a difference of nearly equal integrals
    weight = mean_around(Hat::at(z).value, z, r, {T(-1), T(0), T(1)}, {T(1), T(-2), T(1)});
  } else {
    weight = (hat_integral(z + r) - hat_integral(z - r)) / (T(2) * r);
  }
  return {weight, (high - low) / (T(2) * r), ((high + low) / T(2) - weight) / r};
}

// The same for the first pixel that may be read, to which all before its centre falls.
template <typename T>
RACNN_HOST_DEVICE RawEntry<T> first_area_entry(T z, T r) {
  const auto share = [](T at) RACNN_INLINED { return at < T(0) ? T(1) : Hat::at(at).value; };
  const auto positive = [](T at) RACNN_INLINED { return at > T(0) ? at : T(0); };
  const T high = share(z + r), low = share(z - r);
  T weight;
  if (r < T(0.5)) {
    weight = mean_around(share(z), z, r, {T(0), T(1)}, {T(-1), T(1)});
  } else {
    const T before = clamp_to(r - z, T(0), T(2) * r);
    weight = (before + hat_integral(positive(z + r)) - hat_integral(positive(z - r))) / (T(2) * r);
  }
  return {weight, (high - low) / (T(2) * r), ((high + low) / T(2) - weight) / r};
}

template <typename T>
RACNN_HOST_DEVICE RawEntry<T> area_entry(const FilterAxis<T>& f, const RunPosition<T>& p, int32_t x) {
  const T z = T(p.pixel - x) + (p.beyond - T(0.5));
  if (!f.limited || (x > f.first && x < f.last)) return area_entry(z, f.width);
  if (f.first == f.last) return {T(1), T(0), T(0)};
  if (x == f.first) return first_area_entry(z, f.width);
  RawEntry<T> entry = first_area_entry(-z, f.width);  // in the mirror
  entry.by_position = -entry.by_position;
  return entry;
}

template <typename F, typename T>
RACNN_HOST_DEVICE RawEntry<T> stretched_entry(const FilterAxis<T>& f, const RunPosition<T>& p, int64_t x) {
  const T z = (T(p.pixel - x) + (p.beyond - T(0.5))) * f.inverse_width;
  const FilterValue<T> v = F::at(z);
  const T slope = v.slope * f.inverse_width;
  return {v.value, slope, -z * slope};
}

// Of a plain filter: pixel x and, at an edge, what falls to it.
template <typename F, typename T>
RACNN_HOST_DEVICE RawEntry<T> plain_entry(FilterAxis<T> f, RunPosition<T> p, int32_t x) {
  constexpr int64_t kBeyond = F::kRadius + 1;  // farther outside everything falls to the edge
  int64_t begin = x, end = x;
  if (f.limited) {
    p.pixel = clamp_to<int64_t>(p.pixel, f.first - kBeyond, f.last + kBeyond);
    if (x == f.first) begin = lesser(begin, p.pixel - kBeyond);
    if (x == f.last) end = greater(end, p.pixel + kBeyond);
  }
  f.inverse_width = T(1);  // not area's, whose footprint is a point here
  RawEntry<T> sum{T(0), T(0), T(0)};
  for (int64_t at = begin; at <= end; ++at) sum.add(stretched_entry<F>(f, p, at));
  sum.by_width = T(0);
  return sum;
}

// Beyond this stretch the sum over all positions is the integral, to 1e-8; that it moves at all with the
// position is left out.
constexpr double kSummedStretch = 4096;

template <typename F, typename T>
RACNN_HOST_DEVICE RawEntry<T> sum_of_entries(const FilterAxis<T>& f, const RunPosition<T>& p) {
  if (!f.limited && f.width > T(kSummedStretch)) {
    return {T(F::kIntegral) * f.width, T(0), T(F::kIntegral)};
  }
  int64_t begin = p.pixel - f.reach, end = p.pixel + f.reach;
  if (f.limited) {
    begin = greater<int64_t>(begin, f.first);
    end = lesser<int64_t>(end, f.last);
  }
  RawEntry<T> sums{T(0), T(0), T(0)};
  for (int64_t x = begin; x <= end; ++x) sums.add(stretched_entry<F>(f, p, x));
  return sums;
}

// Entries of neighbouring pixels.
struct Run {
  int32_t first, count;
};

// An output at pixel p reads [p - before, p + after] of [first, last]; if `limited`, what lies beyond them
// falls to the pixels at their ends.
struct Reach {
  int64_t before, after;
  int32_t first, last;
  bool limited;
};

template <typename T>
RACNN_HOST_DEVICE Reach reach_of(const FilterAxis<T>& f) {
  return {f.reach, f.reach, f.first, f.last, f.limited};
}

// What outputs at these pixels and between them read at most: the ends of a run may be zeros. An empty run is
// where it would be, so that runs of neighbours are in order.
RACNN_HOST_DEVICE Run read_by(const Reach& reach, int64_t first_pixel, int64_t last_pixel) {
  int64_t begin = first_pixel - reach.before, end = last_pixel + reach.after;
  if (reach.limited) {
    begin = clamp_to<int64_t>(begin, reach.first, reach.last);
    end = clamp_to<int64_t>(end, reach.first, reach.last);
  } else {
    begin = greater<int64_t>(begin, reach.first);
    end = lesser<int64_t>(end, reach.last);
  }
  begin = lesser<int64_t>(begin, int64_t(reach.last) + 1);
  return {int32_t(begin), int32_t(greater<int64_t>(end - begin + 1, 0))};
}

template <typename T>
RACNN_HOST_DEVICE RunNorm<T> run_norm(const FilterAxis<T>& f, const RunPosition<T>& p) {
  if (!f.antialias) return {T(1), T(0), T(0)};
  RawEntry<T> sums{};
  with_filter(f.interpolation, true,
              [&](auto filter) RACNN_INLINED { sums = sum_of_entries<decltype(filter)>(f, p); });
  const T scale = T(1) / sums.weight;
  return {scale, sums.by_position * scale, sums.by_width * scale};
}

// Calls use(entry_at), where entry_at(p, norm, x) is the entry of pixel x in the run at `p`, before the mask.
template <typename T, typename Use>
RACNN_HOST_DEVICE void with_entries(const FilterAxis<T>& f, const Use& use) {
  using Position = RunPosition<T>;
  using Norm = RunNorm<T>;
  if (f.antialias) {
    with_filter(f.interpolation, true, [&](auto filter) RACNN_INLINED {
      use([&](const Position& p, const Norm& norm, int32_t x) RACNN_INLINED {
        const RawEntry<T> raw = stretched_entry<decltype(filter)>(f, p, x);
        const T weight = raw.weight * norm.scale;
        return RawEntry<T>{weight, raw.by_position * norm.scale - weight * norm.by_position,
                           raw.by_width * norm.scale - weight * norm.by_width};
      });
    });
  } else if (f.reach == 0) {  // nearest
    use([](const Position& p, const Norm&, int32_t x)
            RACNN_INLINED { return RawEntry<T>{x == p.pixel ? T(1) : T(0), T(0), T(0)}; });
  } else if (f.interpolation == Interpolation::kArea && f.width >= T(kPoint)) {
    use([&](const Position& p, const Norm&, int32_t x) RACNN_INLINED { return area_entry(f, p, x); });
  } else {
    with_filter(f.interpolation, false, [&](auto filter) RACNN_INLINED {
      use([&](const Position& p, const Norm&, int32_t x)
              RACNN_INLINED { return plain_entry<decltype(filter)>(f, p, x); });
    });
  }
}

template <typename T>
RACNN_HOST_DEVICE RunEntry<T> run_entry(const FilterAxis<T>& f, const RunPosition<T>& p,
                                        const RawEntry<T>& raw) {
  return {raw.weight,
          {raw.by_position * p.grad.centre + raw.by_width * f.width_grad.centre,
           raw.by_position * p.grad.half + raw.by_width * f.width_grad.half}};
}

template <typename T>
RACNN_HOST_DEVICE RunEntry<T> masked(const FilterAxis<T>& f, RunEntry<T> entry, int32_t x) {
  if (!(f.axis.steepness > T(0))) return entry;
  const T mask = mask_value(f.axis, x);
  const AxisGrad<T> d_mask = mask_grad(f.axis, x);
  return {entry.weight * mask,
          {entry.grad.centre * mask + entry.weight * d_mask.centre,
           entry.grad.half * mask + entry.weight * d_mask.half}};
}

// With kGrad: and so are its derivatives.
template <bool kGrad, typename T>
RACNN_HOST_DEVICE bool is_zero(const RunEntry<T>& entry) {
  return entry.weight == T(0) && (!kGrad || (entry.grad.centre == T(0) && entry.grad.half == T(0)));
}

// The run of output j: calls set(k, RunEntry) for its pixels first + k. Zeros at its ends are left out: with
// kGrad those whose derivatives are zero, too.
template <bool kGrad, typename T, typename Set>
RACNN_HOST_DEVICE Run make_run(const FilterAxis<T>& f, int32_t j, const Set& set) {
  const RunPosition<T> p = run_position(f, j);
  const RunNorm<T> norm = run_norm(f, p);
  const Run widest = read_by(reach_of(f), p.pixel, p.pixel);
  Run run{0, 0};
  with_entries(f, [&](const auto& entry_at) RACNN_INLINED {
    for (int32_t x = widest.first; x < widest.first + widest.count; ++x) {
      const RunEntry<T> entry = run_entry(f, p, entry_at(p, norm, x));
      const bool zero = is_zero<kGrad>(entry);
      if (zero && run.count == 0) continue;
      if (run.count == 0) run.first = x;
      set(x - run.first, masked(f, entry, x));
      if (!zero) run.count = x - run.first + 1;
    }
  });
  return run;
}

}  // namespace racnn
