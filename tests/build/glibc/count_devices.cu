// SPDX-License-Identifier: BSD-3-Clause
extern "C" int count_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
