// SPDX-License-Identifier: BSD-3-Clause
//
// `run_package zoom.pt2 BATCH`: runs the model of export_package.py on a pattern and prints its results.
//
// The package calls racnn_ops::_crop_forward by name. Linking racnn::ops registers it; a program that does
// not know which models it will run can dlopen("libracnn_ops.so") instead. As with every package, inputs must
// have the strides of the exported ones; with AOTI_RUNTIME_CHECK_INPUTS=1 in the environment torch checks.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <cstdlib>

static at::Tensor pattern(int64_t batch) {
  const at::Tensor values = at::arange(batch * 3 * 24 * 32).mul(7919).remainder(251);
  return values.to(at::kByte).view({batch, 3, 24, 32});
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s PACKAGE BATCH\n", argv[0]);
    return 1;
  }
  torch::inductor::AOTIModelPackageLoader model(argv[1]);
  for (const at::Tensor& result : model.run({pattern(std::atoll(argv[2]))})) {
    const at::Tensor numbers = result.contiguous();
    for (int64_t i = 0; i < numbers.numel(); ++i) std::printf("%.9g\n", numbers.const_data_ptr<float>()[i]);
  }
}
