// SPDX-License-Identifier: BSD-3-Clause
//
// Every CPU kernel, for the instruction set that RACNN_CPU_CAPABILITY names, on blocks that end exactly where
// the tensors do: all dtypes, layouts, boundaries, masks, and windows of every kind. The sanitizers stop the
// program at the first access outside; the program itself checks that every result is written, and read from
// nothing but its inputs: two runs over differently filled memory agree in every byte.
#include <cstdio>
#include <limits>

#include "buffers.h"

namespace racnn::test {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// tx, ty, tw, th; pixels of a 20 x 20 image.
constexpr float kWindows[][4] = {
    {10.0f, 10.0f, 7.3f, 6.1f},   {1.0f, 19.0f, 8.0f, 8.0f},      {-50.0f, 10.0f, 8.0f, 8.0f},
    {10.0f, 10.0f, 300.0f, 9.0f}, {10.0f, 10.0f, -1.0f, 0.0f},    {10.0f, 10.0f, 1e30f, 1e30f},
    {3e38f, -3e38f, 3e38f, 1.0f}, {1e-30f, 1e-30f, 1e-30f, 1.0f}, {kNaN, 10.0f, 5.0f, 5.0f},
    {10.0f, kInf, 5.0f, 5.0f},    {10.0f, 10.0f, 5.0f, -kInf},    {2147483648.0f, 10.0f, 5.0f, 5.0f},
    {20.0f, 20.0f, 20.0f, 20.0f}, {0.0f, 0.0f, 0.0f, 0.0f},       {10.0f, 10.0f, 10.0f, 10.0f},
    {19.5f, 0.5f, 0.4f, 0.4f},
};
constexpr int64_t kCount = sizeof(kWindows) / sizeof(kWindows[0]);

constexpr CropShape kShapes[] = {
    // B, K, C, H, W, h, w; B * K windows are taken from the table in turn.
    {2, 8, 3, 20, 20, 7, 9}, {16, 1, 3, 20, 20, 8, 31}, {1, 16, 1, 20, 20, 33, 40},
    {2, 8, 17, 9, 11, 5, 6}, {1, 16, 2, 1, 20, 4, 19},  {2, 8, 3, 20, 1, 18, 3},
    {1, 16, 2, 1, 1, 1, 1},  {1, 16, 3, 3, 300, 2, 5},  {1, 16, 1, 40, 40, 130, 140},
};

struct Mode {
  Boundary boundary;
  double steepness;
  bool affine;
};
constexpr Mode kModes[] = {{Boundary::kZeros, 0.0, false},
                           {Boundary::kBorder, 0.0, true},
                           {Boundary::kClip, 0.7, false},
                           {Boundary::kZeros, 0.7, true},
                           {Boundary::kClip, 0.0, true}};

int failures = 0;
int64_t runs = 0;

template <typename Acc>
std::unique_ptr<Acc[]> make_windows(const CropShape& shape, int32_t values) {
  const int64_t count = shape.batch * shape.windows;
  auto windows = std::make_unique<Acc[]>(size_t(count * values));
  for (int64_t n = 0; n < count; ++n) {
    for (int32_t v = 0; v < values; ++v) windows[size_t(n * values + v)] = Acc(kWindows[n % kCount][v]);
  }
  return windows;
}

struct Affine {
  explicit Affine(const Mode& mode, int64_t channels)
      : scale(new double[size_t(channels)]), shift(new double[size_t(channels)]), used(mode.affine) {
    for (int64_t c = 0; c < channels; ++c) scale[size_t(c)] = 0.5 + 0.1 * double(c), shift[size_t(c)] = 0.25;
  }
  ChannelAffine get() const {
    return used ? ChannelAffine{scale.get(), shift.get()} : ChannelAffine{nullptr, nullptr};
  }
  std::unique_ptr<double[]> scale, shift;
  bool used;
};

// Runs the kernel in pieces of uneven length, as threads would, once for each fill of the result.
template <typename Result, typename Make>
void run(const char* name, const cpu::Units& units, int64_t items, int64_t result_size, const Make& make) {
  std::unique_ptr<Result[]> results[2];
  for (int pass = 0; pass < 2; ++pass) {
    results[pass] = filled_block<Result>(result_size, pass == 0 ? 0x5a : 0xa5);
    const auto problem = make(results[pass].get());
    const auto kernel = cpu::select(problem);
    const int64_t total = items * units.per_item();
    for (int64_t begin = 0, piece = 1; begin < total; begin += piece, piece = piece % 5 + 1) {
      kernel(problem, units, begin, begin + piece < total ? begin + piece : total);
    }
  }
  ++runs;
  if (std::memcmp(results[0].get(), results[1].get(), size_t(result_size) * sizeof(Result)) != 0) {
    ++failures;
    std::printf("%s: the result depends on what was in its memory\n", name);
  }
}

cpu::Units crop_units(const CropShape& s, const Strides& images) {
  const cpu::PlaneLayout layout = cpu::plane_layout(s.channels, images);
  return cpu::Units::make(layout.planes, s.out_height, s.out_width * layout.step);
}

Sizes image_sizes(const CropShape& s) { return {s.batch, 1, s.channels, s.height, s.width}; }
Sizes crop_sizes(const CropShape& s) { return {s.batch, s.windows, s.channels, s.out_height, s.out_width}; }

Layout result_layout(const CropShape& s, const Strides& images) {
  return cpu::plane_layout(s.channels, images).step > 1 ? Layout::kChannelsLast : Layout::kContiguous;
}

template <typename Image, typename Out>
void forward(const CropShape& s, const Mode& mode, Layout layout, Random& random) {
  using Acc = Accumulate<Image>;
  const Strides strides = make_strides(layout, image_sizes(s));
  const Strides out_strides = make_strides(result_layout(s, strides), crop_sizes(s));
  const auto images = random_block<Image>(extent(strides, image_sizes(s)), random);
  const auto windows = make_windows<Acc>(s, 4);
  const Affine affine(mode, s.channels);
  run<Out>("forward", crop_units(s, strides), s.batch * s.windows, extent(out_strides, crop_sizes(s)),
           [&](Out* out) {
             return ForwardProblem<Image, Out>{
                 images.get(), out,         s,
                 strides,      out_strides, {windows.get(), 4, mode.boundary, Acc(mode.steepness)},
                 affine.get()};
           });
}

template <typename Image, typename Grad>
void window_grad(const CropShape& s, const Mode& mode, Layout layout, Layout grad_layout, Random& random) {
  using Acc = Accumulate<Image>;
  const Strides strides = make_strides(layout, image_sizes(s)),
                grad_strides = make_strides(grad_layout, crop_sizes(s));
  const auto images = random_block<Image>(extent(strides, image_sizes(s)), random);
  const auto grad = random_block<Grad>(extent(grad_strides, crop_sizes(s)), random);
  const auto windows = make_windows<Acc>(s, 3);
  const Affine affine(mode, s.channels);
  const cpu::Units units = crop_units(s, strides);
  const int64_t items = s.batch * s.windows;
  run<Acc>("window_grad", units, items, items * units.per_item() * 4, [&](Acc* workspace) {
    return WindowGradProblem<Image, Grad>{
        grad.get(),  images.get(), nullptr, workspace,
        s,           grad_strides, strides, {windows.get(), 3, mode.boundary, Acc(mode.steepness)},
        affine.get()};
  });
}

template <typename Image, typename Grad>
void image_grad(const CropShape& s, const Mode& mode, Layout layout, Layout grad_layout, Random& random) {
  using Acc = Accumulate<Image>;
  const Layout dense = layout == Layout::kChannelsLast ? layout : Layout::kContiguous;
  const Strides strides = make_strides(dense, image_sizes(s)),
                grad_strides = make_strides(grad_layout, crop_sizes(s));
  const auto grad = random_block<Grad>(extent(grad_strides, crop_sizes(s)), random);
  const auto windows = make_windows<Acc>(s, 4);
  const Affine affine(mode, s.channels);
  const cpu::PlaneLayout planes = cpu::plane_layout(s.channels, strides);
  const cpu::Units units = cpu::Units::make(planes.planes, s.height, s.width * planes.step);
  run<Image>("image_grad", units, s.batch, extent(strides, image_sizes(s)), [&](Image* grad_images) {
    return ImageGradProblem<Grad, Image>{grad.get(),  grad_images,
                                         s,           grad_strides,
                                         strides,     {windows.get(), 4, mode.boundary, Acc(mode.steepness)},
                                         affine.get()};
  });
}

template <typename Grad>
void boxcar_grad(const CropShape& s, Energy energy, Layout grad_layout, Random& random) {
  using Acc = Accumulate<Grad>;
  const Strides grad_strides = make_strides(grad_layout, crop_sizes(s));
  const auto grad = random_block<Grad>(extent(grad_strides, crop_sizes(s)), random);
  const auto windows = make_windows<Acc>(s, 3);
  cpu::Units units = cpu::Units::make(energy == Energy::kAbs ? s.channels : 1, s.out_height, s.out_width);
  units.planes_each = 1, units.groups = units.planes;
  const int64_t items = s.batch * s.windows;
  run<Acc>("boxcar_grad", units, items, items * units.per_item() * 5, [&](Acc* workspace) {
    return BoxcarProblem<Grad>{grad.get(), nullptr, workspace, s,      grad_strides, windows.get(),
                               3,          energy,  Acc(0.05), Acc(1), Acc(0.005)};
  });
}

// Tables that no window gives too: in any order, far outside.
template <typename T>
struct RandomTables {
  RandomTables(const CropShape& s, int64_t terms, Random& random) : terms(terms) {
    const int64_t crops = s.batch * s.windows;
    fill(rows, crops * s.out_height, s.height, random), fill(columns, crops * s.out_width, s.width, random);
    row_weights = random_block<T>(crops * terms * s.out_height * 2, random);
    column_weights = random_block<T>(crops * terms * s.out_width * 2, random);
  }

  static void fill(std::unique_ptr<int32_t[]>& table, int64_t count, int32_t size, Random& random) {
    constexpr int32_t kFar[] = {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), -2};
    table = std::make_unique<int32_t[]>(size_t(count));
    std::uniform_int_distribution<int32_t> pixel(-2, size + 1);
    for (int64_t i = 0; i < count; ++i) table[size_t(i)] = i % 7 == 3 ? kFar[i % 3] : pixel(random);
  }

  TapTables<T> get() const {
    return {{rows.get(), row_weights.get()}, {columns.get(), column_weights.get()}, terms};
  }

  std::unique_ptr<int32_t[]> rows, columns;
  std::unique_ptr<T[]> row_weights, column_weights;
  int64_t terms;
};

template <typename T>
void tap_kernels(const CropShape& s, Layout layout, Layout grad_layout, int64_t terms, Random& random) {
  const Layout dense = layout == Layout::kChannelsLast ? layout : Layout::kContiguous;
  const Strides strides = make_strides(layout, image_sizes(s)),
                dense_strides = make_strides(dense, image_sizes(s)),
                grad_strides = make_strides(grad_layout, crop_sizes(s)),
                out_strides = make_strides(result_layout(s, strides), crop_sizes(s));
  const auto images = random_block<T>(extent(strides, image_sizes(s)), random);
  const auto grad = random_block<T>(extent(grad_strides, crop_sizes(s)), random);
  const RandomTables<T> tables(s, terms, random);
  run<T>("tap_crop", crop_units(s, strides), s.batch * s.windows, extent(out_strides, crop_sizes(s)),
         [&](T* out) {
           return TapCropProblem<T>{{images.get(), out, s, strides, out_strides, {}, {}}, tables.get()};
         });
  const cpu::PlaneLayout planes = cpu::plane_layout(s.channels, dense_strides);
  const cpu::Units units = cpu::Units::make(planes.planes, s.height, s.width * planes.step);
  run<T>("tap_image_grad", units, s.batch, extent(dense_strides, image_sizes(s)), [&](T* grad_images) {
    return TapImageGradProblem<T>{{grad.get(), grad_images, s, grad_strides, dense_strides, {}, {}},
                                  tables.get()};
  });
  const cpu::Units parts = crop_units(s, strides);
  const int64_t items = s.batch * s.windows * terms;
  run<T>("tap_grad", parts, items, items * parts.per_item() * cpu::tap_grad_sums(s), [&](T* workspace) {
    return TapGradProblem<T>{grad.get(), images.get(), nullptr, nullptr,     workspace,
                             s,          grad_strides, strides, tables.get()};
  });
}

template <typename Image, typename Crop>
void all_kernels(Random& random) {
  size_t turn = 0;
  for (const CropShape& shape : kShapes) {
    for (const Layout layout : kLayouts) {
      for (const Mode& mode : kModes) {
        const Layout grad_layout = kLayouts[turn++ % std::size(kLayouts)];
        forward<Image, Crop>(shape, mode, layout, random);
        if constexpr (!std::is_same_v<Crop, uint8_t>)
          window_grad<Image, Crop>(shape, mode, layout, grad_layout, random);
        if constexpr (!std::is_same_v<Image, uint8_t>)
          image_grad<Image, Crop>(shape, mode, layout, grad_layout, random);
      }
      if constexpr (std::is_same_v<Image, Crop> && !std::is_same_v<Crop, uint8_t>) {
        for (const Energy energy : {Energy::kAbs, Energy::kSquare})
          boxcar_grad<Crop>(shape, energy, layout, random);
      }
      if constexpr (std::is_same_v<Image, Crop> && std::is_same_v<Image, Accumulate<Image>>) {
        for (const int64_t terms : {1, 2, 3})
          tap_kernels<Image>(shape, layout, kLayouts[turn++ % std::size(kLayouts)], terms, random);
      }
    }
  }
}

}  // namespace racnn::test

extern "C" const char* racnn_cpu_capability();

int main() {
  using racnn::cpu::BFloat16, racnn::cpu::Half, racnn::test::all_kernels;
  racnn::test::Random random(1);
  all_kernels<float, float>(random);
  all_kernels<float, Half>(random);
  all_kernels<float, BFloat16>(random);
  all_kernels<Half, Half>(random);
  all_kernels<Half, float>(random);
  all_kernels<BFloat16, BFloat16>(random);
  all_kernels<BFloat16, float>(random);
  all_kernels<double, double>(random);
  all_kernels<uint8_t, uint8_t>(random);
  all_kernels<uint8_t, Half>(random);
  all_kernels<uint8_t, BFloat16>(random);
  all_kernels<uint8_t, float>(random);
  std::printf("%s: %lld runs, %d failures\n", racnn_cpu_capability(), (long long)racnn::test::runs,
              racnn::test::failures);
  return racnn::test::failures == 0 ? 0 : 1;
}
