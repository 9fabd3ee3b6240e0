// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels know of a crop: along each axis the run of pixels that an output reads, and their weights,
// from its window or from tables.
#pragma once

#include "arena.h"

namespace racnn::cpu::RACNN_ISA {

// The runs of one axis: of `out` outputs in `size` pixels. Their weights; then, with derivatives, either one
// set of slopes, which the outputs' factors turn into the derivatives by the window's centre and half side;
// or those two derivatives.
template <typename T>
struct AxisRuns {
  static constexpr int kMostSets = 3;

  int32_t size, out, longest;
  int sets;              // 1; 2 with slopes; 3 with derivatives
  Run* runs;             // [out]
  T** weights;           // [out]: the sets of a run, one behind the other
  T* sums[kMostSets];    // [out]: of each set
  AxisGrad<T>* factors;  // [out]: of the slopes

  const T* set(int32_t j, int s) const { return weights[j] + int64_t(s) * runs[j].count; }

  // From the first to the last pixel that is read.
  Range range() const {
    Range all{size, 0};
    for (int32_t j = 0; j < out; ++j) {
      if (runs[j].count > 0) all.add({runs[j].first, runs[j].first + runs[j].count});
    }
    return all;
  }

  // visit(output, pixel, weight)
  template <typename Visit>
  void each(const Visit& visit) const {
    for (int32_t j = 0; j < out; ++j) {
      for (int32_t k = 0; k < runs[j].count; ++k) visit(j, runs[j].first + k, weights[j][k]);
    }
  }
};

// Makes an axis run by run.
template <typename T>
class RunMaker {
 public:
  RunMaker(Arena& arena, int32_t size, int32_t out, int sets, int64_t longest)
      : arena_(arena), longest_(longest) {
    axis_ = {size, out, 0, sets, arena.take<Run>(out), arena.take<T*>(out), {}, nullptr};
    for (int s = 0; s < sets; ++s) axis_.sums[s] = arena.take<T>(out);
    found_ = arena.take<T>(sets * longest);
  }

  // The number of entry k of the next run in set s.
  RACNN_INLINE T& entry(int s, int64_t k) { return found_[s * longest_ + k]; }

  void add(int32_t j, Run run) {
    const int64_t numbers = axis_.sets * int64_t(run.count);
    if (numbers > left_) {
      left_ = axis_.sets * longest_ * lesser(axis_.out - j, 256);
      room_ = arena_.take<T>(left_);
    }
    axis_.runs[j] = run;
    axis_.weights[j] = room_;
    axis_.longest = greater(axis_.longest, run.count);
    for (int s = 0; s < axis_.sets; ++s) {
      T sum = T(0);
      for (int32_t k = 0; k < run.count; ++k) {
        room_[int64_t(s) * run.count + k] = entry(s, k);
        sum += entry(s, k);
      }
      axis_.sums[s][j] = sum;
    }
    room_ += numbers;
    left_ -= numbers;
  }

  AxisRuns<T>& axis() { return axis_; }

 private:
  Arena& arena_;
  int64_t longest_;
  AxisRuns<T> axis_;
  T* found_;
  T* room_ = nullptr;
  int64_t left_ = 0;
};

// The next run: the entries of a tap that are inside. At a clamped end both may be one pixel.
template <typename T, typename Tap, typename Set>
RACNN_INLINE void add_tap(RunMaker<T>& maker, int32_t j, const Tap& tap, const Set& set) {
  Run run{0, 0};
  const auto add = [&](int32_t pixel, bool upper) {
    if (pixel == kOutside) return;
    const bool again = run.count > 0 && pixel == run.first;
    if (run.count == 0) run.first = pixel;
    if (!again) ++run.count;
    set(run.count - 1, upper, again);
  };
  add(tap.lower, false);
  add(tap.upper, true);
  maker.add(j, run);
}

template <typename T>
RACNN_INLINE void put(T& to, T value, bool again) {
  to = again ? to + value : value;
}

template <template <typename> typename Axis, typename T>
AxisRuns<T> tap_runs(Arena& arena, const Axis<T>& axis) {
  RunMaker<T> maker(arena, axis.size, axis.out, 1, 2);
  for (int32_t j = 0; j < axis.out; ++j) {
    const Tap<T> tap = make_tap(axis, j);
    add_tap(maker, j, tap, [&](int64_t k, bool upper, bool again) {
      put(maker.entry(0, k), upper ? tap.w_upper : tap.w_lower, again);
    });
  }
  return maker.axis();
}

// With derivatives. Without a mask those of the weights are -1 and +1 times that of the position.
template <typename T>
AxisRuns<T> tap_runs_with_grad(Arena& arena, const Axis<T>& axis) {
  const bool mask = axis.steepness > T(0);
  RunMaker<T> maker(arena, axis.size, axis.out, mask ? 3 : 2, 2);
  if (!mask) maker.axis().factors = arena.take<AxisGrad<T>>(axis.out);
  for (int32_t j = 0; j < axis.out; ++j) {
    const Tap<T> tap = make_tap(axis, j);
    const TapGrad<T> grad = mask ? make_tap_grad(axis, j) : TapGrad<T>{T(-1), T(1), T(0), T(0)};
    if (!mask) maker.axis().factors[j] = position_grad(axis, j);
    add_tap(maker, j, tap, [&](int64_t k, bool upper, bool again) {
      put(maker.entry(0, k), upper ? tap.w_upper : tap.w_lower, again);
      put(maker.entry(1, k), upper ? grad.centre_upper : grad.centre_lower, again);
      if (mask) put(maker.entry(2, k), upper ? grad.half_upper : grad.half_lower, again);
    });
  }
  return maker.axis();
}

template <bool kGrad, typename T>
AxisRuns<T> filter_runs(Arena& arena, const FilterAxis<T>& axis) {
  RunMaker<T> maker(arena, axis.axis.size, axis.axis.out, kGrad ? 3 : 1, longest_run(axis));
  for (int32_t j = 0; j < axis.axis.out; ++j) {
    maker.add(j, make_run<kGrad>(axis, j, [&](int32_t k, const RunEntry<T>& entry) {
                maker.entry(0, k) = entry.weight;
                if constexpr (kGrad) {
                  maker.entry(1, k) = entry.grad.centre;
                  maker.entry(2, k) = entry.grad.half;
                }
              }));
  }
  return maker.axis();
}

template <typename T>
struct CropRuns {
  AxisRuns<T> rows, columns;
  bool finite;  // as CropAxes'

  Box box() const { return {rows.range(), columns.range()}; }
};

template <typename Number>
void reverse(Number* numbers, int32_t count) {
  for (int32_t i = 0, j = count - 1; i < j; ++i, --j) {
    const Number first = numbers[i];
    numbers[i] = numbers[j];
    numbers[j] = first;
  }
}

// The last output first.
template <typename T>
void mirror(AxisRuns<T>& axis) {
  reverse(axis.runs, axis.out);
  reverse(axis.weights, axis.out);
  for (int s = 0; s < axis.sets; ++s) reverse(axis.sums[s], axis.out);
}

// The runs of crop n.
template <bool kGrad = false, typename Taps>
auto crop_runs(Arena& arena, const Taps& taps, const CropShape& s, int64_t n) {
  const auto axes = crop_axes(taps, s, n);
  const auto of = [&](const auto& axis) {
    if constexpr (kGrad) {
      return tap_runs_with_grad(arena, axis);
    } else {
      return tap_runs(arena, axis);
    }
  };
  CropRuns runs{of(axes.y), of(axes.x), axes.finite};
  if (is_mirrored(taps, n)) mirror(runs.columns);
  return runs;
}

template <bool kGrad = false, typename T>
CropRuns<T> crop_runs(Arena& arena, const FilterSpec<T>& spec, const CropShape& s, int64_t n) {
  const CropAxes<FilterAxis<T>> axes = crop_axes(spec, s, n);
  if (has_two_entries(axes.x) && has_two_entries(axes.y)) {
    const WindowSpec<T>& windows = spec;
    return crop_runs<kGrad>(arena, windows, s, n);
  }
  CropRuns<T> runs{filter_runs<kGrad>(arena, axes.y), filter_runs<kGrad>(arena, axes.x), axes.finite};
  if (is_mirrored(spec, n)) mirror(runs.columns);
  return runs;
}

}  // namespace racnn::cpu::RACNN_ISA
