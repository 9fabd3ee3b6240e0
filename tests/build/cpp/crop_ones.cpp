// SPDX-License-Identifier: BSD-3-Clause
//
// The operators from C++, without Python: crops the middle of a 4x4 image of ones to 2x2 with scale 3 and
// shift 1.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdio>
#include <string>
#include <vector>

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

static Tensor crop(const Tensor& images, const Tensor& windows, int64_t height, int64_t width) {
  const auto value = [](const auto& x) { return torch::stable::detail::from(x); };
  StableIValue stack[] = {value(images),
                          value(windows),
                          value(height),
                          value(width),
                          value(std::string("zeros")),
                          value(std::optional<double>()),
                          value(std::vector<double>{3.0}),
                          value(std::vector<double>{1.0}),
                          value(ScalarType::Float),
                          value(std::vector<double>()),
                          value(std::string("bilinear")),
                          value(false),
                          value(std::vector<double>()),
                          value(std::optional<bool>()),
                          value(std::optional<Tensor>())};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("racnn_ops::_crop_forward", "", stack, TORCH_TARGET_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

int main() {
  const Tensor images = torch::stable::full({1, 1, 4, 4}, 1.0);
  const Tensor windows = torch::stable::full({1, 3}, 2.0);
  const Tensor crops = crop(images, windows, 2, 2);
  const float* pixels = crops.const_data_ptr<float>();
  std::printf("%g %g %g %g\n", pixels[0], pixels[1], pixels[2], pixels[3]);
}
