// SPDX-License-Identifier: BSD-3-Clause
//
// Runs of weights along one axis, for the rows or the columns of a tile: which elements of the source a
// result reads, and with which weights. In the forward pass the results are outputs j and the runs those of
// filter_runs.h. In the image gradient they are pixels x, and their runs are the outputs that read x: what
// outputs read does not move left as j grows, so these are neighbours too, found by bisection.
//
// The weights of a run's first entries are kept in shared memory. Further ones are computed where they are
// used, from the outputs' samples, which are kept as well.
#pragma once

#include "numeric.cuh"
#include "tiling.cuh"

namespace racnn {

constexpr int kKeptBytes = 5 << 10;    // of an axis' weights
constexpr int32_t kKeptSamples = 256;  // of an axis, at least as many as a tile has rows or columns

// What is known of an output before the pixel: where it samples, what its weights are divided by.
template <typename Axis>
struct Sample;

template <typename T>
struct Sample<Axis<T>> {
  int32_t pixel;
  T beyond;
};

template <typename T>
struct Sample<TableAxis<T>> {
  int32_t pixel;
  T lower, upper;
};

template <typename T>
struct Sample<FilterAxis<T>> {
  int64_t pixel;
  T beyond, sum;
};

template <typename T>
RACNN_HOST_DEVICE Sample<Axis<T>> sample_at(const Axis<T>& axis, int32_t j) {
  const Position<T> p = sample_position(axis, j);
  return {p.pixel, p.beyond};
}

template <typename T>
RACNN_HOST_DEVICE Sample<TableAxis<T>> sample_at(const TableAxis<T>& axis, int32_t j) {
  return {axis.pixels[j], axis.weights[2 * int64_t(j)], axis.weights[2 * int64_t(j) + 1]};
}

// Calls, since there are five filters, each with its own code.
template <typename T>
__device__ RACNN_NO_INLINE RunPosition<T> position_at(const FilterAxis<T>& axis, int32_t j) {
  return run_position(axis, j);
}

template <typename T>
__device__ RACNN_NO_INLINE RawEntry<T> sums_at(const FilterAxis<T>& axis, RunPosition<T> position) {
  return run_sums(axis, position);
}

template <typename T>
__device__ __forceinline__ Sample<FilterAxis<T>> sample_at(const FilterAxis<T>& axis, int32_t j) {
  const RunPosition<T> p = position_at(axis, j);
  return {p.pixel, p.beyond, sums_at(axis, p).weight};
}

// With the derivatives.
template <typename T>
struct RunSample {
  RunPosition<T> position;
  RawEntry<T> sums;

  RunSample() = default;
  RACNN_HOST_DEVICE RunSample(const RunPosition<T>& position, const RawEntry<T>& sums)
      : position(position), sums(sums) {}
  // For the weight alone.
  RACNN_HOST_DEVICE RunSample(const Sample<FilterAxis<T>>& sample)
      : position{sample.pixel, sample.beyond, {}}, sums{sample.sum, T(0), T(0)} {}
};

// The weight of a pixel that the output at `sample` reads.
template <typename T>
RACNN_HOST_DEVICE T weight_at(const Axis<T>& axis, const Sample<Axis<T>>& sample, int32_t pixel) {
  const T weight = pixel == sample.pixel ? T(1) - sample.beyond : sample.beyond;
  return axis.steepness > T(0) ? weight * mask_value(axis, pixel) : weight;
}

template <typename T>
RACNN_HOST_DEVICE T weight_at(const TableAxis<T>&, const Sample<TableAxis<T>>& sample, int32_t pixel) {
  return pixel == sample.pixel ? sample.lower : sample.upper;
}

// The same of a run, and if kSets is 3 the weight's derivatives.
template <int32_t kSets, typename T, typename Kept>
__device__ RACNN_NO_INLINE Pack<T, kSets> run_values(const FilterAxis<T>& axis, Kept sample, int32_t pixel) {
  const RunSample<T> of = sample;
  Pack<T, kSets> values;
  with_entries(axis, of.position, of.sums, [&](const auto& entry_at) {
    const RunEntry<T> entry = masked(axis, run_entry(axis, of.position, entry_at(pixel)), pixel);
    const T all[] = {entry.weight, entry.grad.centre, entry.grad.half};
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) values.values[s] = all[s];
  });
  return values;
}

template <typename Axis>
RACNN_HOST_DEVICE int32_t outputs_of(const Axis& axis) {
  return axis.out;
}

template <typename T>
RACNN_HOST_DEVICE int32_t outputs_of(const FilterAxis<T>& axis) {
  return axis.axis.out;
}

template <typename Axis>
__device__ __forceinline__ int64_t pixel_of(const Axis& axis, int32_t j) {
  return lower_pixel(axis, j);
}

template <typename T>
__device__ __forceinline__ int64_t pixel_of(const FilterAxis<T>& axis, int32_t j) {
  return run_position(axis, j).pixel;
}

template <typename Axis>
RACNN_HOST_DEVICE Reach reach_of(const Axis& axis) {
  return {0, 1, 0, axis.size - 1, false};
}

// The output around which pixel_of reaches `pixel`, by the formula; off where positions are clamped or
// coincide.
template <typename T>
RACNN_HOST_DEVICE int32_t guess_output(const Axis<T>& axis, int64_t pixel) {
  const T u = (T(pixel) + T(0.5) - axis.centre) / axis.half;
  return int32_t(clamp_to(T(0.5) * (u + T(1)) * T(axis.out), T(0), T(axis.out)));  // NaN becomes 0
}

template <typename T>
RACNN_HOST_DEVICE int32_t guess_output(const FilterAxis<T>& axis, int64_t pixel) {
  return guess_output(axis.axis, pixel);
}

template <typename T>
RACNN_HOST_DEVICE int32_t guess_output(const TableAxis<T>& axis, int64_t) {
  return axis.out / 2;
}

// The first j with pixel_of(j) >= `pixel`. The guess, checked, leaves a bisection of about one step; where it
// is off the bisection is longer, and right. Pixels are compared as integers: float32 does not hold those
// beyond 2^24.
template <typename Axis>
__device__ __forceinline__ int32_t first_output_at(const Axis& axis, int64_t pixel) {
  int32_t low = 0, high = outputs_of(axis);  // pixel_of(low - 1) < pixel <= pixel_of(high)
  const int32_t guess = guess_output(axis, pixel), before = guess - 2, after = guess + 1;
  if (before >= 0 && pixel_of(axis, before) < pixel) low = before + 1;
  if (after < high && pixel_of(axis, after) >= pixel) high = after;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (pixel_of(axis, middle) < pixel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The same, as a call for filters.
template <typename Axis>
__device__ __forceinline__ int32_t find_output(const Axis& axis, int64_t pixel) {
  return first_output_at(axis, pixel);
}

template <typename T>
__device__ RACNN_NO_INLINE int32_t find_output(const FilterAxis<T>& axis, int64_t pixel) {
  return first_output_at(axis, pixel);
}

// The outputs that read pixel x.
template <typename Axis>
__device__ __forceinline__ Run outputs_reading(const Axis& axis, const Reach& reach, int32_t x) {
  const int32_t out = outputs_of(axis);
  if (x < reach.first) return {0, 0};
  if (x > reach.last) return {out, 0};
  const int32_t begin = reach.limited && x == reach.first ? 0 : find_output(axis, x - reach.after);
  const int32_t end = reach.limited && x == reach.last ? out : find_output(axis, x + reach.before + 1);
  return {begin, end - begin};
}

// What of an axis any output reads.
template <typename Axis>
__device__ __forceinline__ Run read_by_any(const Axis& axis) {
  return read_by(reach_of(axis), pixel_of(axis, 0), pixel_of(axis, outputs_of(axis) - 1));
}

RACNN_HOST_DEVICE bool meet(const Run& run, int32_t begin, int32_t count) {
  return run.first < begin + count && begin < run.first + run.count;
}

// The runs of at most kMost rows or columns of a tile, in shared memory. kInverse: of pixels. kSets: weights,
// and if 3 their derivatives with respect to the window's centre and half side.
template <typename Axis, typename T, bool kInverse, int32_t kMost, int kSets = 1>
struct RunTable {
  static constexpr int32_t kKept = kKeptBytes / sizeof(T) / kMost / kSets;  // entries of each run
  // Otherwise samples are computed anew for each weight: that costs less than a barrier.
  static constexpr bool kSamples = std::is_same_v<Axis, FilterAxis<T>>;
  static constexpr int32_t kMostSamples = !kSamples ? 1 : kInverse ? kKeptSamples : kMost;
  using Kept = std::conditional_t<kSets == 1, Sample<Axis>, RunSample<T>>;
  using Entry = Pack<T, kSets>;

  Kept samples[kMostSamples];  // of the outputs from `sampled` on
  T weights[kSets][kKept][kMost];
  T sums[kSets][kMost];
  Run runs[kMost];
  int32_t sampled;
  int32_t first, end;  // what all runs read

  static __device__ __forceinline__ Kept sample(const Axis& axis, int32_t j) {
    if constexpr (kSets == 1) return sample_at(axis, j);
    if constexpr (kSets == 3) {
      const RunPosition<T> position = position_at(axis, j);
      return {position, sums_at(axis, position)};
    }
  }

  // For `count` rows or columns from `begin` on, by all threads, `thread` in any order: first this, if there
  // are samples, then after a barrier make_weights.
  __device__ __forceinline__ void make_samples(const Axis& axis, int32_t begin, int32_t count,
                                               int32_t thread) {
    int32_t from = begin, number = count;
    if constexpr (kInverse) {
      const Reach reach = reach_of(axis);
      const Run last = outputs_reading(axis, reach, begin + count - 1);
      from = outputs_reading(axis, reach, begin).first;
      number = last.first + last.count - from;
    }
    for (int32_t j = thread; j < lesser(number, kMostSamples); j += kThreads) {
      samples[j] = sample(axis, from + j);
    }
    if (thread == 0) sampled = from;
  }

  __device__ __forceinline__ void make_weights(const Axis& axis, int32_t begin, int32_t count, int32_t i) {
    if (i >= count) return;
    const Reach reach = reach_of(axis);
    Run run;
    if constexpr (kInverse) {
      run = outputs_reading(axis, reach, begin + i);
    } else {
      const int64_t pixel = pixel_of(axis, begin + i);
      run = read_by(reach, pixel, pixel);
    }
    if (i == 0) first = run.first;
    if (i == count - 1) end = run.first + run.count;
    if constexpr (kSamples) {  // zeros at the ends are not read
      while (run.count > 0 && is_zero(axis, begin, i, run.first)) ++run.first, --run.count;
      while (run.count > 0 && is_zero(axis, begin, i, run.first + run.count - 1)) --run.count;
    }
    runs[i] = run;
    Entry sum{};
    for (int32_t k = 0; k < (kInverse ? lesser(run.count, kKept) : run.count); ++k) {
      const Entry entry = compute(axis, begin, i, run.first + k);
      RACNN_UNROLL
      for (int s = 0; s < kSets; ++s) {
        if (k < kKept) weights[s][k][i] = entry.values[s];
        sum.values[s] += entry.values[s];
      }
    }
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) sums[s][i] = sum.values[s];
  }

  __device__ __forceinline__ bool is_zero(const Axis& axis, int32_t begin, int32_t i, int32_t element) const {
    const Entry entry = compute(axis, begin, i, element);
    bool zero = true;
    RACNN_UNROLL
    for (const T value : entry.values) zero = zero && value == T(0);
    return zero;
  }

  // Those of `element` of the source in run i.
  __device__ __forceinline__ Entry compute(const Axis& axis, int32_t begin, int32_t i,
                                           int32_t element) const {
    const int32_t j = kInverse ? element : begin + i, kept = j - sampled;
    const int32_t pixel = kInverse ? begin + i : element;
    if constexpr (!kSamples) return {{weight_at(axis, sample_at(axis, j), pixel)}};
    if constexpr (kSamples) {
      if (kept < kMostSamples) return run_values<kSets>(axis, samples[kept], pixel);
      return run_values<kSets>(axis, sample(axis, j), pixel);
    }
  }

  // Those of entry k.
  __device__ __forceinline__ Entry entry(const Axis& axis, int32_t begin, int32_t i, int32_t k) const {
    if (k >= kKept) return compute(axis, begin, i, runs[i].first + k);
    Entry values;
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) values.values[s] = weights[s][k][i];
    return values;
  }
};

}  // namespace racnn
