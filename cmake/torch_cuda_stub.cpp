// SPDX-License-Identifier: BSD-3-Clause
//
// Stands in for libtorch_cuda.so at link time where torch is CPU-only; never loaded, never installed.
extern "C" {
void aoti_torch_get_current_cuda_stream() {}
void torch_c10_cuda_check_msg() {}
void torch_c10_cuda_free_error_msg() {}
}
