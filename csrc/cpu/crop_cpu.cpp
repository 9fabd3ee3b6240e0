// SPDX-License-Identifier: BSD-3-Clause
//
// The CPU backend: cuts the work into units, runs them on torch's thread pool, adds up partial sums in a
// fixed order.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "../copies.h"
#include "../tap_glue.h"
#include "kernels.h"
#include "near_pixels.h"

namespace racnn::cpu {

// Numbers per unit in the workspaces of the two window gradients.
constexpr int64_t kWindowSums = 4;
constexpr int64_t kBoxcarSums = 5;

static Units crop_units(const CropShape& s, const PlaneLayout& layout) {
  return Units::make(layout.planes, s.out_height, s.out_width * layout.step);
}

// Every channel has its own maximum, or all share one.
static Units boxcar_units(const CropShape& s, Energy energy) {
  Units units = Units::make(energy == Energy::kAbs ? s.channels : 1, s.out_height, s.out_width);
  units.planes_each = 1, units.groups = units.planes;
  return units;
}

// A kernel throws if it gets no memory for its arena. That is reported here and not by torch, which would
// lose the message and print one of its own.
template <typename Problem>
void run(const Problem& problem, const Units& units, int64_t items) {
  std::atomic<size_t> missing{0};
  with_near_pixels(problem, [&](const Problem& near) {
    const auto kernel = select(near);
    torch::stable::parallel_for(0, checked_product("the work", {items, units.per_item()}), 1,
                                [&](int64_t begin, int64_t end) {
                                  try {
                                    kernel(near, units, begin, end);
                                  } catch (const OutOfMemory& error) {
                                    missing = error.bytes;
                                  }
                                });
  });
  if (missing != 0) {
    throw std::runtime_error("not enough memory: a kernel asked for " + std::to_string(missing) +
                             " bytes to work in");
  }
}

// From sums over (x, half_x, y, half_y) to tx, ty, tl or tx, ty, tw, th.
template <typename T>
void write_window_grad(const double (&sums)[4], int32_t values, T* grad) {
  grad[0] = T(sums[0]), grad[1] = T(sums[2]);
  if (values == 3) {
    grad[2] = T(sums[1] + sums[3]);
  } else {
    grad[2] = T(sums[1]), grad[3] = T(sums[3]);
  }
}

template <typename T>
void finish_window_grad(const T* workspace, int64_t units, const Window<T>& window, int32_t values, T* grad) {
  double sums[4] = {};
  for (int64_t u = 0; u < units; ++u) {
    for (int v = 0; v < 4; ++v) sums[v] += double(workspace[u * kWindowSums + v]);
  }
  if (!is_finite(window)) sums[0] = sums[1] = sums[2] = sums[3] = std::numeric_limits<double>::quiet_NaN();
  write_window_grad(sums, values, grad);
}

// `units` are chunks of rows, channel after channel; each channel is normalised by its own maximum.
template <typename T>
void finish_boxcar_grad(const T* workspace, const Units& units, T scale, const Window<T>& window,
                        int32_t values, T* grad) {
  double sums[4] = {};
  for (int64_t group = 0; group < units.groups; ++group) {
    const T* slots = workspace + group * units.chunks * kBoxcarSums;
    double most = 0.0, partial[4] = {};
    for (int64_t u = 0; u < units.chunks; ++u) {
      const T* slot = slots + u * kBoxcarSums;
      for (int v = 0; v < 4; ++v) partial[v] += double(slot[v]);
      if (!(slot[4] <= most)) most = double(slot[4]);
      if (slot[4] != slot[4]) break;  // NaN stays
    }
    if (most == 0.0) continue;
    for (int v = 0; v < 4; ++v) sums[v] += double(scale) / most * partial[v];
  }
  if (!is_finite(window)) sums[0] = sums[1] = sums[2] = sums[3] = std::numeric_limits<double>::quiet_NaN();
  write_window_grad(sums, values, grad);
}

struct CpuBackend {
  using Half = cpu::Half;
  using BFloat16 = cpu::BFloat16;
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  // Enough for either layout.
  static int64_t window_grad_workspace(const CropShape& s) {
    const int64_t planar = crop_units(s, {s.channels, 1}).per_item();
    const int64_t interleaved = crop_units(s, {1, s.channels}).per_item();
    return checked_product("the workspace of the window gradient",
                           {s.batch, s.windows, kWindowSums, std::max(planar, interleaved)});
  }

  // A unit is a part of one term of a crop.
  static int64_t tap_grad_workspace(const CropShape& s, int64_t terms) {
    const int64_t planar = crop_units(s, {s.channels, 1}).per_item();
    const int64_t interleaved = crop_units(s, {1, s.channels}).per_item();
    return checked_product("the workspace of the tables' gradient",
                           {s.batch, s.windows, terms, tap_grad_sums(s), std::max(planar, interleaved)});
  }

  static int64_t boxcar_grad_workspace(const CropShape& s, Energy energy) {
    return checked_product("the workspace of the boxcar gradient",
                           {s.batch, s.windows, kBoxcarSums, boxcar_units(s, energy).per_item()});
  }

  template <typename Image, typename Out>
  static void forward(const ForwardProblem<Image, Out>& p) {
    run(p, crop_units(p.shape, plane_layout(p.shape.channels, p.image_strides)),
        p.shape.batch * p.shape.windows);
  }

  template <typename Image, typename Grad>
  static void window_grad(const WindowGradProblem<Image, Grad>& p) {
    const Units units = crop_units(p.shape, plane_layout(p.shape.channels, p.image_strides));
    const int64_t crops = p.shape.batch * p.shape.windows;
    run(p, units, crops);
    for (int64_t n = 0; n < crops; ++n) {
      finish_window_grad(p.workspace + n * units.per_item() * kWindowSums, units.per_item(),
                         load_window(p.windows, n), p.windows.values, p.grad_windows + n * p.windows.values);
    }
  }

  template <typename Grad, typename Image>
  static void image_grad(const ImageGradProblem<Grad, Image>& p) {
    const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
    run(p, Units::make(layout.planes, p.shape.height, p.shape.width * layout.step), p.shape.batch);
  }

  template <typename Grad>
  static void boxcar_grad(const BoxcarProblem<Grad>& p) {
    const Units units = boxcar_units(p.shape, p.energy);
    const int64_t crops = p.shape.batch * p.shape.windows;
    run(p, units, crops);
    for (int64_t n = 0; n < crops; ++n) {
      finish_boxcar_grad(p.workspace + n * units.per_item() * kBoxcarSums, units, p.scale,
                         load_window(p.windows + n * p.values, p.values), p.values,
                         p.grad_windows + n * p.values);
    }
  }

  template <typename T>
  static void tap_crop(const TapCropProblem<T>& p) {
    run(p, crop_units(p.shape, plane_layout(p.shape.channels, p.image_strides)),
        p.shape.batch * p.shape.windows);
  }

  template <typename T>
  static void tap_image_grad(const TapImageGradProblem<T>& p) {
    const PlaneLayout layout = plane_layout(p.shape.channels, p.image_strides);
    run(p, Units::make(layout.planes, p.shape.height, p.shape.width * layout.step), p.shape.batch);
  }

  template <typename T>
  static void tap_grad(const TapGradProblem<T>& p) {
    const Units units = crop_units(p.shape, plane_layout(p.shape.channels, p.image_strides));
    const int64_t items = p.shape.batch * p.shape.windows * p.taps.terms, sums = tap_grad_sums(p.shape);
    const int64_t rows = 2 * int64_t(p.shape.out_height), columns = 2 * int64_t(p.shape.out_width);
    run(p, units, items);
    std::vector<double> totals(size_t(sums), 0.0);
    for (int64_t item = 0; item < items; ++item) {
      std::fill(totals.begin(), totals.end(), 0.0);
      const T* parts = p.workspace + item * units.per_item() * sums;
      for (int64_t e = 0; e < units.per_item() * sums; ++e) totals[size_t(e % sums)] += double(parts[e]);
      std::copy_n(totals.begin(), rows, p.grad_row_weights + item * rows);
      std::copy_n(totals.begin() + rows, columns, p.grad_column_weights + item * columns);
    }
  }
};

}  // namespace racnn::cpu

STABLE_TORCH_LIBRARY_IMPL(racnn_ops, CPU, m) {
  if (!racnn::earlier_copy().empty()) return;
  using racnn::cpu::CpuBackend;
  m.impl("_crop_forward", TORCH_BOX(&racnn::crop_forward<CpuBackend>));
  m.impl("_crop_window_grad", TORCH_BOX(&racnn::crop_window_grad<CpuBackend>));
  m.impl("_crop_image_grad", TORCH_BOX(&racnn::crop_image_grad<CpuBackend>));
  m.impl("_crop_boxcar_grad", TORCH_BOX(&racnn::crop_boxcar_grad<CpuBackend>));
  m.impl("_tap_crop", TORCH_BOX(&racnn::tap_crop<CpuBackend>));
  m.impl("_tap_image_grad", TORCH_BOX(&racnn::tap_image_grad<CpuBackend>));
  m.impl("_tap_grad", TORCH_BOX(&racnn::tap_grad<CpuBackend>));
}
