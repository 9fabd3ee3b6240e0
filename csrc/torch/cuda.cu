// SPDX-License-Identifier: BSD-3-Clause
//
// The CUDA backend: launches on torch's current stream, asks nothing of the host (no synchronisation, no
// copy), so that calls can be captured in CUDA graphs. Built with -DUSE_CUDA, which shim.h needs for the
// stream.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "../cuda/boxcar_grad.cuh"
#include "../cuda/forward.cuh"
#include "../cuda/image_grad.cuh"
#include "../cuda/window_grad.cuh"
#include "register.h"

namespace racnn::cuda {

static cudaStream_t current_stream() {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct CudaBackend : BackendTypes<__half, __nv_bfloat16> {
  static constexpr int64_t kMostNormalised = racnn::kMostNormalised;
  static constexpr bool kMirrors = false;
  static constexpr int64_t kSmallWorkspace = 0;

  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  static int64_t window_grad_workspace(const CropShape& shape) { return racnn::window_grad_workspace(shape); }
  static int64_t boxcar_grad_workspace(const CropShape& shape, Energy energy) {
    return racnn::boxcar_grad_workspace(shape, energy);
  }

  template <typename Problem>
  static void compute(const Problem& problem) {
    STD_CUDA_CHECK(racnn::compute(problem, current_stream()));
  }

  template <typename Problem>
  static void compute(const std::vector<Problem>& problems) {
    for (const Problem& problem : problems) compute(problem);
  }
};

}  // namespace racnn::cuda

static const racnn::Registration registration(racnn::Kind::IMPL,
                                              &racnn::register_operators<racnn::cuda::CudaBackend>, "CUDA",
                                              __FILE__, __LINE__);
