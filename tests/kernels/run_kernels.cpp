// SPDX-License-Identifier: BSD-3-Clause
//
// Runs one CPU kernel, without torch, and compares what it computes with plain loops (expected.h):
//
//     run_kernels forward images=uint8 crops=float32 H=448 W=448 h=224 w=224 windows=224,224,112
//     run_kernels version
//
// case.h has all words. The first word is a kernel; `version` prints what this was compiled with. The exit
// status is 0 if all is within the tolerance, 1 if not, 2 if the case makes no sense. The kernels are those
// of the best instruction set that the machine and RACNN_CPU_CAPABILITY allow. To compile it by hand:
//
//     g++ -std=c++20 -O2 -DRACNN_ISA=baseline tests/kernels/run_kernels.cpp csrc/cpu/isa.cpp
//     csrc/cpu/kernels.cpp
#include <cstdio>
#include <exception>

#include "../../csrc/cpu/backend.h"
#include "case.h"
#include "expected.h"

extern "C" const char* racnn_cpu_capability();

namespace racnn::cpu {

static int64_t parts = 1;

// One after another on this thread.
void parallel_for(int64_t items, const std::function<void(int64_t begin, int64_t end)>& work) {
  const int64_t each = items / parts + 1;
  for (int64_t begin = 0; begin < items; begin += each) work(begin, std::min(begin + each, items));
}

template <typename T>
struct Type {};

// Calls use(Type<Image>, Type<Crop>) if the pair has a kernel.
template <typename Use>
void with_types(const Case& c, const Use& use) {
  using Types = Backend;
#define RACNN_CALL_IF(IMAGE, CROP)                                            \
  if (c.images == kNameOf<Types::IMAGE> && c.crops == kNameOf<Types::CROP>) { \
    return use(Type<Types::IMAGE>{}, Type<Types::CROP>{});                    \
  }
  RACNN_FUSED_PAIRS(RACNN_CALL_IF)
#undef RACNN_CALL_IF
  throw std::invalid_argument("no kernel for images=" + c.images + " crops=" + c.crops);
}

// `read` is one of the problem's tensors.
template <typename Problem, typename T>
double compute(const Case& c, const Problem& problem, Tensor<T>& read) {
  for (int64_t n = 0; n < c.repeats; ++n) Backend::compute(problem);
  if (c.wrong) read.fill(Random(4));
  return c.checked ? largest_difference(problem) : 0.0;
}

// Exact in every accumulation type.
struct Affine {
  std::vector<double> scale, shift, offset;

  explicit Affine(const Case& c) {
    for (int64_t channel = 0; c.affine && channel < c.shape.channels; ++channel) {
      scale.push_back(0.5 + 0.25 * double(channel % 5));
      shift.push_back(0.125 * double(channel % 7) - 0.25);
      if (c.taps.offset) offset.push_back(0.375 * double(channel % 3) - 0.5);
    }
  }

  ChannelAffine get() const {
    if (scale.empty()) return {};
    return {scale.data(), shift.data(), offset.empty() ? nullptr : offset.data()};
  }
};

// The windows' pixels with any weights.
template <typename T>
struct Tables {
  std::vector<int32_t> pixels[2];  // of rows, of columns
  std::vector<T> weights[2];

  Tables(const Case& c, const std::vector<T>& windows) {
    const WindowSpec<T> spec{windows.data(), c.values(), Boundary::kZeros, T(0)};
    Random random(3);
    for (int64_t n = 0; n < c.crop_count(); ++n) {
      const auto axes = crop_axes(spec, c.shape, n);
      for (int side = 0; side < 2; ++side) {
        const Axis<T>& axis = side == 0 ? axes.y : axes.x;
        for (int32_t j = 0; j < axis.out; ++j) {
          pixels[side].push_back(lower_pixel(axis, j));
          for (int entry = 0; entry < 2; ++entry) weights[side].push_back(random.number<T>());
        }
      }
    }
  }

  TapTables<T> get() const {
    return {{pixels[0].data(), weights[0].data()}, {pixels[1].data(), weights[1].data()}};
  }
};

template <typename Image, typename Crop>
struct Run {
  using Acc = Accumulate<Image>;
  static constexpr bool kCropHasGradient = !std::is_same_v<Crop, uint8_t>;
  static constexpr bool kImageHasGradient = kCropHasGradient && !std::is_same_v<Image, uint8_t>;

  const Case& c;
  std::vector<Acc> windows = c.window_data<Acc>();
  Affine affine{c};

  Tensor<Image> images() const {
    Tensor<Image> tensor(c.image_sizes(), c.layout);
    tensor.fill(Random(1));
    return tensor;
  }

  Tensor<Crop> gradients() const {
    Tensor<Crop> tensor(c.crop_sizes(), c.layout);
    tensor.fill(Random(2));
    return tensor;
  }

  template <typename Taps>
  double forward(const Taps& taps) const {
    Tensor<Image> in = images();
    Tensor<Crop> out(c.crop_sizes(), c.result);
    return compute(c,
                   ForwardProblem<Image, Crop, Taps>{in.data(), out.data(), c.crop_shape(), in.strides(),
                                                     out.strides(), taps, affine.get(), c.image_index()},
                   in);
  }

  template <typename Taps>
  double window_grad(const Taps& taps) const {
    Tensor<Image> in = images();
    Tensor<Crop> grad = gradients();
    std::vector<Acc> result(windows.size());
    std::vector<Window<Acc>> workspace(size_t(Backend::window_grad_workspace(c.crop_shape())));
    return compute(c,
                   WindowGradProblem<Image, Crop, Taps>{grad.data(), in.data(), result.data(),
                                                        workspace.data(), c.crop_shape(), grad.strides(),
                                                        in.strides(), taps, affine.get(), c.image_index()},
                   in);
  }

  template <typename Taps>
  double image_grad(const Taps& taps) const {
    Tensor<Crop> grad = gradients();
    Tensor<Image> result(c.image_sizes(), c.result);
    Strides strides = grad.strides();
    if (!c.index.empty()) strides = {0, strides.b, strides.c, strides.y, strides.x};
    return compute(
        c,
        ImageGradProblem<Crop, Image, Taps>{grad.data(), result.data(), c.image_grad_shape(), strides,
                                            result.strides(), taps, affine.get(), c.image_index()},
        grad);
  }

  double boxcar_grad() const {
    Tensor<Crop> grad = gradients();
    std::vector<Acc> result(windows.size());
    std::vector<Acc> workspace(size_t(Backend::boxcar_grad_workspace(c.shape, c.energy)));
    return compute(c,
                   BoxcarProblem<Crop>{grad.data(), result.data(), workspace.data(), c.shape, grad.strides(),
                                       windows.data(), c.values(), c.energy, Acc(0.3), Acc(0.5), Acc(0.02)},
                   grad);
  }

  // NaN: there is no such kernel.
  double run() const {
    double worst = std::numeric_limits<double>::quiet_NaN();
    if (c.kernel.starts_with("tap_")) {
      if constexpr (std::is_same_v<Image, Crop> && std::is_same_v<Image, Acc>) {
        const Tables<Acc> tables(c, windows);
        if (c.kernel == "tap_crop") worst = forward(tables.get());
        if (c.kernel == "tap_image_grad") worst = image_grad(tables.get());
      }
      return worst;
    }
    if (c.kernel == "boxcar_grad") {
      if constexpr (std::is_same_v<Image, Crop> && kCropHasGradient) worst = boxcar_grad();
      return worst;
    }
    with_taps(windows.data(), c.values(), c.taps, [&](const auto& taps) {
      if (c.kernel == "forward") worst = forward(taps);
      if constexpr (kCropHasGradient) {
        if (c.kernel == "window_grad") worst = window_grad(taps);
      }
      if constexpr (kImageHasGradient) {
        if (c.kernel == "image_grad") worst = image_grad(taps);
      }
    });
    return worst;
  }
};

static void print_version() {
#if defined(__clang__)
  const char* const compiler = __VERSION__;
#else
  const char* const compiler = "GCC " __VERSION__;
#endif
#if defined(__OPTIMIZE__)
  const char* const optimised = "";
#else
  const char* const optimised = ", not optimised";
#endif
  std::printf("%s%s\n", compiler, optimised);
}

static int run_case(const Case& c) {
  parts = c.parts;
  double worst = 0.0;
  with_types(
      c, [&]<typename Image, typename Crop>(Type<Image>, Type<Crop>) { worst = Run<Image, Crop>{c}.run(); });
  if (std::isnan(worst)) throw std::invalid_argument("no kernel " + c.kernel + " for these dtypes");
  std::printf("%s: %s, %.3g of the tolerance\n", racnn_cpu_capability(), c.kernel.c_str(), worst);
  return worst <= 1.0 ? 0 : 1;
}

}  // namespace racnn::cpu

int main(int count, char** words) {
  try {
    if (count < 2) throw std::invalid_argument("the first word must be a kernel, or version");
    if (std::string(words[1]) == "version") {
      racnn::cpu::print_version();
      return 0;
    }
    return racnn::cpu::run_case({words[1], {count - 2, words + 2}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
