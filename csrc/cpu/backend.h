// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU backend without torch: cuts the work into units, runs them in parallel, adds up partial sums in a
// fixed order.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "../parts.h"
#include "../sizes.h"
#include "half.h"
#include "kernels.h"
#include "near_pixels.h"

namespace racnn::cpu {

inline Units crop_units(const CropShape& s, const PlaneLayout& layout, const Cut& cut) {
  return Units::make(s.batch * s.windows, layout.planes, s.out_height, s.out_width * layout.step, cut);
}

inline Units crop_units(const CropShape& s, const Strides& images, const Cut& cut) {
  if (turns_maps(s, images)) return Units::of_channels(s, windows_of_a_turn(s));
  return crop_units(s, plane_layout(s.channels, images), cut);
}

template <typename Taps>
constexpr Cut kCutOf{};
template <typename T>
constexpr Cut kCutOf<FilterSpec<T>> = kCutOfRuns;

inline Units image_units(const CropShape& s, const Strides& images) {
  if (turns_maps(s, images)) return Units::of_channels(s, s.windows);
  const PlaneLayout layout = plane_layout(s.channels, images);
  return Units::make(s.batch, layout.planes, s.height, s.width * layout.step);
}

// Units in which one crop has a part.
inline int64_t parts_of_crop(const Units& units) {
  return units.by_channels ? units.groups : units.per_item();
}

// Of whichever layout and taps have most.
inline int64_t most_parts_of_crop(const CropShape& s) {
  int64_t most = Units::of_channels(s, 1).groups;
  for (const PlaneLayout& layout : {PlaneLayout{s.channels, 1}, PlaneLayout{1, s.channels}}) {
    for (const Cut& cut : {Cut{}, kCutOfRuns}) most = std::max(most, crop_units(s, layout, cut).per_item());
  }
  return most;
}

// Every channel has its own maximum, or all share one.
inline Units boxcar_units(const CropShape& s, Energy energy) {
  Units units =
      Units::make(s.batch * s.windows, energy == Energy::kAbs ? s.channels : 1, s.out_height, s.out_width);
  units.planes_each = 1;
  units.groups = units.planes;
  return units;
}

// A problem as it is best read, and its part of a call's work.
template <typename Problem>
struct Piece {
  Problem problem;
  decltype(bring_near(std::declval<Problem&>())) copies;
  Units units;
  int64_t end;  // of its units among those of all pieces
};

// Several problems as one piece of work.
template <typename Problem, typename UnitsOf>
std::vector<Piece<Problem>> prepare(const std::vector<Problem>& problems, const UnitsOf& units_of) {
  std::vector<Piece<Problem>> pieces;
  pieces.reserve(problems.size());
  int64_t end = 0;
  for (Problem problem : problems) {
    auto copies = bring_near(problem);
    const Units units = units_of(problem);
    if (__builtin_add_overflow(end, checked_product("the work", {units.items, units.per_item()}), &end)) {
      throw std::invalid_argument("the work is too large");
    }
    pieces.push_back({problem, std::move(copies), units, end});
  }
  return pieces;
}

// A kernel throws if it gets no memory for its arena. That is reported here and not by torch, which would
// lose the message and print one of its own.
template <typename Problem>
void run(const std::vector<Piece<Problem>>& pieces) {
  std::atomic<size_t> missing{0};
  const Kernel<Problem> kernel = select<Problem>();
  for_each_part(pieces.empty() ? 0 : pieces.back().end, [&](int64_t begin, int64_t end) {
    const auto ends_after = [](int64_t unit, const Piece<Problem>& piece) { return unit < piece.end; };
    auto piece = std::upper_bound(pieces.begin(), pieces.end(), begin, ends_after);
    try {
      for (; begin < end; ++piece) {
        const int64_t stop = std::min(end, piece->end);
        const int64_t before = piece->end - piece->units.items * piece->units.per_item();
        if (begin < stop) kernel(piece->problem, piece->units, begin - before, stop - before);
        begin = stop;
      }
    } catch (const OutOfMemory& error) {
      missing = error.bytes;
    }
  });
  if (missing != 0) {
    throw std::runtime_error("not enough memory: a kernel asked for " + std::to_string(missing) +
                             " bytes to work in");
  }
}

// The problems of one image each that a problem with an image index is made of.
template <typename Problem>
std::vector<Problem> parts_of(const Problem& p) {
  using T = std::remove_cvref_t<decltype(*p.taps.data)>;
  constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  static constexpr T kNowhere[] = {kNaN, kNaN, kNaN, kNaN, kNaN};
  std::vector<Problem> parts;
  each_run(p.index, p.shape.batch, [&](int64_t image, int64_t first, int64_t count) {
    if (image != kOutside) {
      parts.push_back(part_of(p, first, count));
      parts.back().images += image * p.image_strides.b;
      return;
    }
    for (; count > 0; ++first, --count) {
      parts.push_back(part_of(p, first, 1));
      parts.back().taps.data = kNowhere;
    }
  });
  for (Problem& part : parts) part.index = {};
  return parts;
}

template <typename T>
void add(Window<double>& sums, const Window<T>& part, double factor = 1.0) {
  sums.x += factor * double(part.x);
  sums.half_x += factor * double(part.half_x);
  sums.y += factor * double(part.y);
  sums.half_y += factor * double(part.half_y);
}

// Units are chunks of rows, channel after channel; each channel is normalised by its own maximum.
template <typename T>
Window<double> add_up_boxcar(const BoxcarSums<T>* parts, const Units& units, T scale) {
  Window<double> sums{};
  for (int64_t group = 0; group < units.groups; ++group) {
    double most = 0.0;
    Window<double> partial{};
    for (int64_t u = 0; u < units.chunks; ++u) {
      const BoxcarSums<T>& part = parts[group * units.chunks + u];
      add(partial, part.sums);
      if (!(part.most <= most)) most = double(part.most);
      if (part.most != part.most) break;  // NaN stays
    }
    if (most != 0.0) add(sums, partial, double(scale) / most);
  }
  return sums;
}

// What the operators call (torch/crop_operators.h).
struct Backend : BackendTypes<Half, BFloat16> {
  static constexpr int64_t kMostNormalised = INT64_MAX;
  static constexpr bool kMirrors = true;

  // In windows.
  static int64_t window_grad_workspace(const CropShape& s) {
    return checked_product("the workspace of the window gradient",
                           {s.batch, s.windows, most_parts_of_crop(s)});
  }

  static int64_t boxcar_grad_workspace(const CropShape& s, Energy energy) {
    constexpr int64_t kSums = sizeof(BoxcarSums<float>) / sizeof(float);
    return checked_product("the workspace of the boxcar gradient",
                           {s.batch, s.windows, kSums, boxcar_units(s, energy).per_item()});
  }

  template <typename Image, typename Out, typename Taps>
  static void compute(const std::vector<ForwardProblem<Image, Out, Taps>>& problems) {
    run(prepare(problems, [](const auto& p) { return crop_units(p.shape, p.image_strides, kCutOf<Taps>); }));
  }

  template <typename Image, typename Grad, typename Taps>
  static void compute(const std::vector<WindowGradProblem<Image, Grad, Taps>>& problems) {
    const auto pieces =
        prepare(problems, [](const auto& p) { return crop_units(p.shape, p.image_strides, kCutOf<Taps>); });
    run(pieces);
    for (const auto& [p, copies, units, end] : pieces) {
      const int64_t parts = parts_of_crop(units);
      for (int64_t n = 0; n < p.shape.batch * p.shape.windows; ++n) {
        Window<double> sums{};
        for (int64_t u = 0; u < parts; ++u) add(sums, p.workspace[n * parts + u]);
        store_window_grad(load_window(p.taps, n), sums, p.taps.values, p.grad_windows + n * p.taps.values);
      }
    }
  }

  template <typename Image, typename Out, typename Taps>
  static void compute(const ForwardProblem<Image, Out, Taps>& p) {
    if constexpr (kHasWindows<Taps>) {
      if (p.index.of_crop != nullptr) return compute(parts_of(p));
    }
    compute(std::vector{p});
  }

  template <typename Grad, typename Image, typename Taps>
  static void compute(const ImageGradProblem<Grad, Image, Taps>& p) {
    run(prepare(std::vector{p}, [](const auto& p) { return image_units(p.shape, p.image_strides); }));
  }

  template <typename Image, typename Grad, typename Taps>
  static void compute(const WindowGradProblem<Image, Grad, Taps>& p) {
    if (p.index.of_crop == nullptr) return compute(std::vector{p});
    auto parts = parts_of(p);
    auto* workspace = p.workspace;
    for (auto& part : parts) {
      part.workspace = workspace;
      workspace += window_grad_workspace(part.shape);
    }
    compute(parts);
    for (int64_t e = 0; e < p.shape.batch * p.taps.values; ++e) {
      if (p.index.image_of(e / p.taps.values) == kOutside) p.grad_windows[e] = 0;
    }
  }

  template <typename Grad>
  static void compute(const BoxcarProblem<Grad>& p) {
    using T = Accumulate<Grad>;
    const Units units = boxcar_units(p.shape, p.energy);
    run(prepare(std::vector{p}, [&](const auto&) { return units; }));
    const auto* parts = reinterpret_cast<const BoxcarSums<T>*>(p.workspace);
    for (int64_t n = 0; n < units.items; ++n) {
      const Window<double> sums = add_up_boxcar(parts + n * units.per_item(), units, p.scale);
      const Window<T> window = load_window(p.windows + n * p.values, p.values);
      store_window_grad(window, sums, p.values, p.grad_windows + n * p.values);
    }
  }
};

}  // namespace racnn::cpu
