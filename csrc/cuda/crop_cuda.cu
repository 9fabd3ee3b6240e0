// SPDX-License-Identifier: BSD-3-Clause
//
// The CUDA backend: launches on torch's current stream, asks nothing of the host (no synchronisation, no
// copy), so that calls can be captured in CUDA graphs. Built with -DUSE_CUDA, which shim.h needs for the
// stream.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "../copies.h"
#include "../tap_glue.h"
#include "boxcar_grad.cuh"
#include "crop_forward.cuh"
#include "crop_image_grad.cuh"
#include "crop_window_grad.cuh"
#include "tap_grad.cuh"

namespace racnn::cuda {

static cudaStream_t current_stream() {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct CudaBackend {
  using Half = __half;
  using BFloat16 = __nv_bfloat16;

  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  static int64_t window_grad_workspace(const CropShape& shape) { return racnn::window_grad_workspace(shape); }
  static int64_t boxcar_grad_workspace(const CropShape& shape, Energy energy) {
    return racnn::boxcar_grad_workspace(shape, energy);
  }

  template <typename Image, typename Out>
  static void forward(const ForwardProblem<Image, Out>& problem) {
    STD_CUDA_CHECK(launch_crop_forward(problem, current_stream()));
  }

  template <typename Image, typename Grad>
  static void window_grad(const WindowGradProblem<Image, Grad>& problem) {
    STD_CUDA_CHECK(launch_crop_window_grad(problem, current_stream()));
  }

  template <typename Grad, typename Image>
  static void image_grad(const ImageGradProblem<Grad, Image>& problem) {
    STD_CUDA_CHECK(launch_crop_image_grad(problem, current_stream()));
  }

  template <typename Grad>
  static void boxcar_grad(const BoxcarProblem<Grad>& problem) {
    STD_CUDA_CHECK(launch_boxcar_grad(problem, current_stream()));
  }

  static int64_t tap_grad_workspace(const CropShape&, int64_t) { return 0; }

  template <typename T>
  static void tap_crop(const TapCropProblem<T>& problem) {
    STD_CUDA_CHECK(launch_tap_crop(problem, current_stream()));
  }

  template <typename T>
  static void tap_image_grad(const TapImageGradProblem<T>& problem) {
    STD_CUDA_CHECK(launch_tap_image_grad(problem, current_stream()));
  }

  template <typename T>
  static void tap_grad(const TapGradProblem<T>& problem) {
    STD_CUDA_CHECK(launch_tap_grad(problem, current_stream()));
  }
};

}  // namespace racnn::cuda

STABLE_TORCH_LIBRARY_IMPL(racnn_ops, CUDA, m) {
  if (!racnn::earlier_copy().empty()) return;
  using racnn::cuda::CudaBackend;
  m.impl("_crop_forward", TORCH_BOX(&racnn::crop_forward<CudaBackend>));
  m.impl("_crop_window_grad", TORCH_BOX(&racnn::crop_window_grad<CudaBackend>));
  m.impl("_crop_image_grad", TORCH_BOX(&racnn::crop_image_grad<CudaBackend>));
  m.impl("_crop_boxcar_grad", TORCH_BOX(&racnn::crop_boxcar_grad<CudaBackend>));
  m.impl("_tap_crop", TORCH_BOX(&racnn::tap_crop<CudaBackend>));
  m.impl("_tap_image_grad", TORCH_BOX(&racnn::tap_image_grad<CudaBackend>));
  m.impl("_tap_grad", TORCH_BOX(&racnn::tap_grad<CudaBackend>));
}
