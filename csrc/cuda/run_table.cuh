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

constexpr int32_t kKeptSamples = 256;  // of an axis, at least as many as a tile has rows or columns
// Entries of a run whose weights are kept.
template <typename T>
constexpr int32_t kKeptOfRow = 80 / sizeof(T);
template <typename T>
constexpr int32_t kKeptOfColumn = 40 / sizeof(T);

// What is known of an output before the pixel: where it samples, by what its weights are multiplied.
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
  T beyond, scale;
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
__device__ RACNN_NO_INLINE RunNorm<T> norm_at(const FilterAxis<T>& axis, RunPosition<T> position) {
  return run_norm(axis, position);
}

template <typename T>
__device__ __forceinline__ Sample<FilterAxis<T>> sample_at(const FilterAxis<T>& axis, int32_t j) {
  const RunPosition<T> p = position_at(axis, j);
  return {p.pixel, p.beyond, norm_at(axis, p).scale};
}

// With the derivatives.
template <typename T>
struct RunSample {
  RunPosition<T> position;
  RunNorm<T> norm;

  RunSample() = default;
  RACNN_HOST_DEVICE RunSample(const RunPosition<T>& position, const RunNorm<T>& norm)
      : position(position), norm(norm) {}
  // For the weight alone.
  RACNN_HOST_DEVICE RunSample(const Sample<FilterAxis<T>>& sample)
      : position{sample.pixel, sample.beyond, {}}, norm{sample.scale, T(0), T(0)} {}
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
template <int32_t kSets, typename T>
__device__ __forceinline__ Pack<T, kSets> values_of(const RunEntry<T>& entry) {
  const T all[] = {entry.weight, entry.grad.centre, entry.grad.half};
  Pack<T, kSets> values;
  RACNN_UNROLL
  for (int s = 0; s < kSets; ++s) values.values[s] = all[s];
  return values;
}

template <int32_t kSets, typename T, typename Kept>
__device__ RACNN_NO_INLINE Pack<T, kSets> run_values(const FilterAxis<T>& axis, Kept sample, int32_t pixel) {
  const RunSample<T> of = sample;
  Pack<T, kSets> values;
  with_entries(axis, [&](const auto& entry_at) {
    const RunEntry<T> entry = run_entry(axis, of.position, entry_at(of.position, of.norm, pixel));
    values = values_of<kSets>(masked(axis, entry, pixel));
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
__device__ __forceinline__ int32_t guess_output(const Axis<T>& axis, int64_t pixel) {
  const T u = __fdividef(float(T(pixel) + T(0.5) - axis.centre), float(axis.half));
  return int32_t(clamp_to(T(0.5) * (u + T(1)) * T(axis.out), T(0), T(axis.out)));  // NaN becomes 0
}

template <typename T>
__device__ __forceinline__ int32_t guess_output(const FilterAxis<T>& axis, int64_t pixel) {
  return guess_output(axis.axis, pixel);
}

template <typename T>
__device__ __forceinline__ int32_t guess_output(const TableAxis<T>& axis, int64_t) {
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

// The outputs that read pixel x are [outputs_from, outputs_to); `find(pixel)` is find_output.
template <typename Axis, typename Find>
__device__ __forceinline__ int32_t outputs_from(const Axis& axis, const Reach& reach, int32_t x,
                                                const Find& find) {
  if (x < reach.first || (reach.limited && x == reach.first)) return 0;
  return x > reach.last ? outputs_of(axis) : find(x - reach.after);
}

template <typename Axis, typename Find>
__device__ __forceinline__ int32_t outputs_to(const Axis& axis, const Reach& reach, int32_t x,
                                              const Find& find) {
  if (x < reach.first) return 0;
  if (x > reach.last || (reach.limited && x == reach.last)) return outputs_of(axis);
  return find(x + reach.before + 1);
}

// What of an axis any output reads.
template <typename Axis>
__device__ __forceinline__ Run read_by_any(const Axis& axis) {
  return read_by(reach_of(axis), pixel_of(axis, 0), pixel_of(axis, outputs_of(axis) - 1));
}

RACNN_HOST_DEVICE bool meet(const Run& run, int32_t begin, int32_t count) {
  return run.first < begin + count && begin < run.first + run.count;
}

// The runs of at most kMost rows or columns of a tile, in shared memory, of each the first kKept entries.
// kInverse: of pixels. kSets: weights, and if 3 their derivatives with respect to the window's centre and
// half side.
template <typename Axis, typename T, bool kInverse, int32_t kMost, int32_t kKept_, int kSets_ = 1>
struct RunTable {
  static constexpr int32_t kKept = kKept_;
  static constexpr int kSets = kSets_;
  // Otherwise samples are computed anew for each weight: that costs less than a barrier.
  static constexpr bool kSamples = std::is_same_v<Axis, FilterAxis<T>>;
  static constexpr int32_t kMostSamples = !kSamples ? 1 : kInverse ? kKeptSamples : kMost;
  using Kept = std::conditional_t<kSets == 1, Sample<Axis>, RunSample<T>>;
  using Number = T;
  using Entry = Pack<T, kSets>;

  Kept samples[kMostSamples];  // of the outputs from `sampled` on
  T weights[kSets][kKept][kMost];
  T sums[kSets][kMost];  // kInverse: of pixels they are not needed
  Run runs[kMost];
  int32_t sampled, sampled_end;
  int32_t first, end;  // what all runs read

  static __device__ __forceinline__ Kept sample(const Axis& axis, int32_t j) {
    if constexpr (kSets == 1) return sample_at(axis, j);
    if constexpr (kSets == 3) {
      const RunPosition<T> position = position_at(axis, j);
      return {position, norm_at(axis, position)};
    }
  }

  __device__ __forceinline__ Kept kept_sample(const Axis& axis, int32_t j) const {
    return j - sampled < kMostSamples ? samples[j - sampled] : sample(axis, j);
  }

  // For `count` rows or columns from `begin` on: first this, if there are samples, by `thread` of half of the
  // block, then after a barrier make_weights.
  __device__ __forceinline__ void make_samples(const Axis& axis, int32_t begin, int32_t count,
                                               int32_t thread) {
    int32_t from = begin, to = begin + count;
    if constexpr (kInverse) {
      const Reach reach = reach_of(axis);
      const auto find = [&](int64_t pixel) { return find_output(axis, pixel); };
      from = outputs_from(axis, reach, begin, find);
      to = outputs_to(axis, reach, begin + count - 1, find);
    }
    for (int32_t j = from + thread; j < lesser(to, from + kMostSamples); j += kThreads / 2) {
      samples[j - from] = sample(axis, j);
    }
    if (thread == 0) {
      sampled = from;
      sampled_end = to;
    }
  }

  __device__ __forceinline__ void make_weights(const Axis& axis, int32_t begin, int32_t count, int32_t i) {
    if (i >= count) return;
    Run widest;
    if constexpr (kSamples) {
      widest = fill_filter(axis, begin, i);
    } else {
      widest = fill_pairs(axis, begin + i, i);
    }
    if (i == 0) first = widest.first;
    if (i == count - 1) end = widest.first + widest.count;
  }

  // Both fill run i and return what it reads at most. Of pairs the end is found on the way along the entries,
  // if they are few.
  __device__ __forceinline__ Run fill_pairs(const Axis& axis, int32_t pixel, int32_t i) {
    const Reach reach = reach_of(axis);
    const auto find = [&](int64_t at) { return find_output(axis, at); };
    const int32_t from = outputs_from(axis, reach, pixel, find);
    const int32_t most = lesser(from + kKept, outputs_of(axis));
    int32_t j = from;
    for (; j < most; ++j) {
      const auto sample = sample_at(axis, j);
      if (sample.pixel > pixel) break;
      weights[0][j - from][i] = weight_at(axis, sample, pixel);
    }
    if (j == from + kKept) j = outputs_to(axis, reach, pixel, find);
    return runs[i] = {from, j - from};
  }

  // A call, since there are five filters, each with its own code.
  __device__ RACNN_NO_INLINE Run fill_filter(const Axis& axis, int32_t begin, int32_t i) {
    const Reach reach = reach_of(axis);
    const RunSample<T> own = samples[kInverse ? 0 : i];
    Run widest;
    if constexpr (kInverse) {
      const auto find = [&](int64_t pixel) { return find_sample(axis, pixel); };
      const int32_t from = outputs_from(axis, reach, begin + i, find);
      widest = {from, outputs_to(axis, reach, begin + i, find) - from};
    } else {
      widest = read_by(reach, own.position.pixel, own.position.pixel);
    }
    Run run{widest.first, 0};  // without zeros at the ends, which are not read
    Entry sum{};
    with_entries(axis, [&](const auto& entry_at) {
      const auto entry_of = [&](int32_t element) {
        if constexpr (kInverse) {
          const RunSample<T> of = kept_sample(axis, element);
          return run_entry(axis, of.position, entry_at(of.position, of.norm, begin + i));
        } else {
          return run_entry(axis, own.position, entry_at(own.position, own.norm, element));
        }
      };
      int32_t element = widest.first, last = widest.first + widest.count;
      for (; element < last; ++element) {
        const RunEntry<T> entry = entry_of(element);
        const bool zero = is_zero<kSets == 3>(entry);
        if (run.count == 0) {
          if (zero) continue;
          run.first = element;
        }
        const int32_t k = element - run.first;
        if (kInverse && k == kKept) break;
        const Entry values = values_of<kSets>(masked(axis, entry, kInverse ? begin + i : element));
        RACNN_UNROLL
        for (int s = 0; s < kSets; ++s) {
          if (k < kKept) weights[s][k][i] = values.values[s];
          sum.values[s] += values.values[s];
        }
        if (!zero) run.count = k + 1;
      }
      while (element < last && is_zero<kSets == 3>(entry_of(last - 1))) --last;
      if (element < last) run.count = last - run.first;
    });
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) sums[s][i] = sum.values[s];
    runs[i] = run;
    return widest;
  }

  // The first output whose pixel is at least `pixel`.
  __device__ __forceinline__ int32_t find_sample(const Axis& axis, int64_t pixel) const {
    if (sampled_end - sampled > kMostSamples) return find_output(axis, pixel);
    int32_t j = clamp_to(guess_output(axis, pixel), sampled, sampled_end);
    while (j > sampled && samples[j - 1 - sampled].pixel >= pixel) --j;
    while (j < sampled_end && samples[j - sampled].pixel < pixel) ++j;
    return j;
  }

  // Those of `element` of the source in run i.
  __device__ __forceinline__ Entry compute(const Axis& axis, int32_t begin, int32_t i,
                                           int32_t element) const {
    const int32_t j = kInverse ? element : begin + i, pixel = kInverse ? begin + i : element;
    if constexpr (kSamples) {
      return run_values<kSets>(axis, kept_sample(axis, j), pixel);
    } else {
      return {{weight_at(axis, sample_at(axis, j), pixel)}};
    }
  }

  // Those of entry k.
  __device__ __forceinline__ Entry entry(const Axis& axis, int32_t begin, int32_t i, int32_t k) const {
    return k < kKept ? kept(i, k) : compute(axis, begin, i, runs[i].first + k);
  }

  __device__ __forceinline__ Entry kept(int32_t i, int32_t k) const {
    Entry values;
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) values.values[s] = weights[s][k][i];
    return values;
  }
};

// The tables of a tile, by all threads of the block: `axes` is there, and at the end so are they.
template <typename Columns, typename Rows, typename Axes>
__device__ __forceinline__ void make_tables(Columns& columns, Rows& rows, const Axes& axes,
                                            const Tile& tile) {
  const int32_t i = threadIdx.x, from_the_end = kThreads - 1 - i;
  if constexpr (Rows::kSamples) {
    if (i < kThreads / 2) {
      columns.make_samples(axes.x, tile.column, tile.columns, i);
    } else {
      rows.make_samples(axes.y, tile.row, tile.rows, i - kThreads / 2);
    }
    __syncthreads();
  }
  columns.make_weights(axes.x, tile.column, tile.columns, i);
  rows.make_weights(axes.y, tile.row, tile.rows, from_the_end);
  __syncthreads();
}

// A unit of the source, contracted along y with each set of weights of run i of a tile's rows, which begin at
// `begin`. The loads of kAhead rows are on the way together.
template <int32_t kAhead, typename Table, typename Axis, typename Lines, typename Values>
__device__ __forceinline__ void contract_rows(const Table& rows, const Axis& axis, int32_t begin, int32_t i,
                                              const Lines& source, const typename Lines::Unit& unit,
                                              int64_t row_bytes, Values& values) {
  const Run run = rows.runs[i];
  if (unit.mask == 0) return;
  const auto add = [&](const typename Table::Entry& entry, const typename Lines::Elements& elements) {
    RACNN_UNROLL
    for (int s = 0; s < Table::kSets; ++s) {
      RACNN_UNROLL
      for (int v = 0; v < Lines::kCount; ++v) {
        auto& value = values[s].values[v];
        value = std::fma(entry.values[s], widen<typename Table::Number>(elements.values[v]), value);
      }
    }
  };
  const int32_t kept = lesser(run.count, Table::kKept);
  int64_t from = run.first * row_bytes;
  RACNN_NO_UNROLL
  for (int32_t k = 0; k < kept; k += kAhead) {
    typename Lines::Elements ahead[kAhead];
    RACNN_UNROLL
    for (int r = 0; r < kAhead; ++r) {
      if (k + r < kept) ahead[r] = source.load(unit, from);
      from += row_bytes;
    }
    RACNN_UNROLL
    for (int r = 0; r < kAhead; ++r) {
      if (k + r < kept) add(rows.kept(i, k + r), ahead[r]);
    }
  }
  RACNN_NO_UNROLL
  for (int32_t k = kept; k < run.count; ++k) {
    const auto elements = source.load(unit, (run.first + k) * row_bytes);
    add(rows.compute(axis, begin, i, run.first + k), elements);
  }
}

}  // namespace racnn
