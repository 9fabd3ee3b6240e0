// SPDX-License-Identifier: BSD-3-Clause
//
// The options of the taps, by their names or by a code, and the kernels that they lead to. On the host.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "problems.h"

namespace racnn {

// The enumerator of an option by its name; `names` are in the enumeration's order.
template <typename Enum>
Enum parse(const char* option, const std::string& name, std::initializer_list<const char*> names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return Enum(found - names.begin());
  std::string message = std::string(option) + " must be one of";
  for (const char* each : names) message += std::string(" '") + each + "'";
  throw std::invalid_argument(message);
}

// What the operators say of the taps, besides the windows.
struct TapOptions {
  Boundary boundary;
  double steepness;  // of the mask, per pixel; 0: no mask
  Interpolation interpolation;
  bool antialias;
  bool offset = false;  // whether one is added, which the kernels of two entries do not
};

inline TapOptions parse_taps(const std::string& boundary, std::optional<double> mask_steepness,
                             const std::string& interpolation, bool antialias, bool offset = false) {
  return {parse<Boundary>("boundary", boundary, {"zeros", "border", "clip", "window"}),
          mask_steepness.value_or(0.0),
          parse<Interpolation>("interpolation", interpolation,
                               {"nearest", "bilinear", "bicubic", "lanczos3", "area"}),
          antialias, offset};
}

// All that is no number of its own, as one: racnn_ops._kernels makes it.
struct OptionCode {
  int64_t code;  // boundary + 4 * (interpolation + 8 * (antialias + 2 * (layout + 4 * dtype)))

  TapOptions taps(double steepness) const {
    const int64_t interpolation = code / 4 % 8;
    if (code < 0 || interpolation > int64_t(Interpolation::kArea)) {
      throw std::invalid_argument("code must be one that racnn_ops._kernels makes");
    }
    return {Boundary(code % 4), steepness, Interpolation(interpolation), code / 32 % 2 != 0};
  }
  // Of the result: 1 contiguous, 2 channels last; 0: as the images.
  std::optional<bool> channels_last() const {
    const int64_t layout = code / 64 % 4;
    return layout == 0 ? std::nullopt : std::optional(layout == 2);
  }
  int64_t dtype() const { return code / 256; }  // torch's number of it
};

// Calls use(taps): WindowSpec for what its kernels can, otherwise FilterSpec. `windows` hold `values` numbers
// each.
template <typename Acc, typename Use>
void with_taps(const Acc* windows, int32_t values, const TapOptions& options, const Use& use) {
  const WindowSpec<Acc> spec{windows, values, options.boundary, Acc(options.steepness)};
  const Interpolation interpolation = options.interpolation;
  const bool plain = interpolation == Interpolation::kBilinear && !options.antialias && !options.offset;
  if (plain && spec.boundary != Boundary::kWindow) return use(spec);
  const bool plain_only = interpolation == Interpolation::kNearest || interpolation == Interpolation::kArea;
  if (plain_only && options.antialias) {
    throw std::invalid_argument("antialias must be False with 'nearest' and 'area'");
  }
  use(FilterSpec<Acc>{spec, interpolation, options.antialias || interpolation == Interpolation::kLanczos3});
}

}  // namespace racnn
