// SPDX-License-Identifier: BSD-3-Clause
//
// Does the emulation find what it claims to find? Kernels with one fault each, and their right twins, as a
// Python module. test_emulation_faults.py says which detector of which build (plain, AddressSanitizer and
// UBSan, ThreadSanitizer) has to find which fault.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "cuda_emulation.h"

namespace {

constexpr unsigned kThreads = 64, kBlocks = 2;
constexpr int kSize = int(kThreads * kBlocks);

struct Params {
  const float* in;  // kSize elements
  float* out;       // kSize elements
};

__device__ int element() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

__device__ float* shared() { return static_cast<float*>(emulation::shared_memory()); }

// Every twin writes all of `out`.

template <bool kFixed>
__global__ void off_by_one_read(Params p) {
  const int i = element();
  const int next = kFixed && i + 1 == kSize ? i : i + 1;
  p.out[i] = p.in[i] + p.in[next];
}

template <bool kFixed>
__global__ void off_by_one_shared_write(Params p) {
  const unsigned shift = kFixed ? 0 : 1;
  shared()[threadIdx.x + shift] = p.in[element()];
  __syncthreads();
  p.out[element()] = shared()[(threadIdx.x ^ 1u) + shift];
}

template <bool kFixed>
__global__ void missing_barrier(Params p) {
  shared()[threadIdx.x] = p.in[element()];
  if (kFixed) __syncthreads();
  p.out[element()] = shared()[blockDim.x - 1 - threadIdx.x];
}

// A loop that reads what its next round overwrites: the second barrier is the one that is forgotten.
template <bool kFixed>
__global__ void missing_second_barrier(Params p) {
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    shared()[threadIdx.x] = p.in[element()] + float(round);
    __syncthreads();
    sum += shared()[blockDim.x - 1 - threadIdx.x];
    if (kFixed) __syncthreads();
  }
  p.out[element()] = sum;
}

// A shuffle does not order memory: only __syncwarp does.
template <bool kFixed>
__global__ void shuffle_instead_of_barrier(Params p) {
  shared()[threadIdx.x] = p.in[element()];
  if (kFixed) {
    __syncwarp();
  } else {
    __shfl_sync(0xffffffffu, 0, 0);
  }
  p.out[element()] = shared()[threadIdx.x ^ 1u];
}

template <bool kFixed>
__global__ void blocks_write_one_element(Params p) {
  p.out[element()] = 0;
  if (threadIdx.x == 0) p.out[kFixed ? element() : 0] = p.in[element()];
}

template <bool kFixed>
__global__ void divergent_barrier(Params p) {
  if (kFixed || threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  p.out[element()] = p.in[element()];
}

template <bool kFixed>
__global__ void unreached_barrier(Params p) {
  const bool reaches = kFixed || threadIdx.x < 40;
  if (reaches) __syncthreads();
  p.out[element()] = __shfl_xor_sync(0xffffffffu, p.in[element()], 16);
}

template <bool kFixed>
__global__ void mask_without_caller(Params p) {
  p.out[element()] = __shfl_down_sync(kFixed ? 0xffffffffu : 0x0000ffffu, p.in[element()], 1);
}

template <bool kFixed>
__global__ void mask_of_absent_lanes(Params p) {
  const unsigned lane = threadIdx.x % 32;
  p.out[element()] = p.in[element()];
  if (lane < 16) p.out[element()] += __shfl_xor_sync(kFixed ? 0x0000ffffu : 0xffffffffu, p.in[element()], 1);
}

template <bool kFixed>
__global__ void different_masks(Params p) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned mask = kFixed || lane < 16 ? 0xffffffffu : 0xffff0000u;
  p.out[element()] = __shfl_xor_sync(mask, p.in[element()], 1);
}

template <bool kFixed>
__global__ void different_functions(Params p) {
  const float in = p.in[element()];
  p.out[element()] = kFixed || threadIdx.x % 2 == 1 ? __shfl_xor_sync(0xffffffffu, in, 2)
                                                    : float(__any_sync(0xffffffffu, in > 0));
}

template <bool kFixed>
__global__ void shuffle_of_odd_width(Params p) {
  p.out[element()] = __shfl_down_sync(0xffffffffu, p.in[element()], 1, kFixed ? 16 : 12);
}

template <bool kFixed>
__global__ void shuffle_from_absent_lane(Params p) {
  const unsigned lane = threadIdx.x % 32;
  p.out[element()] = p.in[element()];
  if (lane < 16) p.out[element()] = __shfl_xor_sync(0x0000ffffu, p.in[element()], kFixed ? 8 : 16);
}

template <bool kFixed>
__global__ void unwritten_output(Params p) {
  if (kFixed || element() < kSize - 1) p.out[element()] = p.in[element()];
}

template <bool kFixed>
__global__ void unwritten_shared(Params p) {
  if (kFixed || threadIdx.x > 0) shared()[threadIdx.x] = p.in[element()];
  __syncthreads();
  p.out[element()] = shared()[threadIdx.x];
}

template <bool kFixed>
__global__ void misaligned_load(Params p) {
  const int i = 4 * (element() / 4);
  const float4 four = *reinterpret_cast<const float4*>(p.in + (kFixed || i + 4 == kSize ? i : i + 1));
  p.out[element()] = four.x + four.w;
}

template <bool kFixed>
__global__ void misaligned_ldg(Params p) {
  const int i = 4 * (element() / 4);
  const float4 four = __ldg(reinterpret_cast<const float4*>(p.in + (kFixed || i + 4 == kSize ? i : i + 1)));
  p.out[element()] = four.x + four.w;
}

template <bool kFixed>
__global__ void misaligned_store(Params p) {
  const int i = 4 * (element() / 4);
  if (threadIdx.x % 4 == 0) {
    *reinterpret_cast<float4*>(p.out + (kFixed || i + 4 == kSize ? i : i + 1)) = make_float4(1, 2, 3, 4);
  }
}

template <bool kFixed>
__global__ void signed_overflow(Params p) {
  using Offset = std::conditional_t<kFixed, int64_t, int32_t>;
  p.out[element()] = float(Offset(element()) * 100'000'000);
}

#if !defined( \
    RACNN_EMULATION_THREADS)  // where there is static shared memory, races between blocks are not seen

__global__ void static_shared_write(Params p, unsigned shift) {
  __shared__ float values[kThreads];
  values[threadIdx.x + shift] = p.in[element()];
  __syncthreads();
  p.out[element()] = values[(threadIdx.x ^ 1u) + shift];
}

template <bool kFixed>
__global__ void off_by_one_static_shared_write(Params p) {
  static_shared_write(p, kFixed ? 0 : 1);
}

__global__ void static_shared_pointer(Params p, int last) {
  __shared__ float values[kThreads];
  values[threadIdx.x] = p.in[element()];
  __syncthreads();
  float sum = 0;
  for (const float* value = values; value <= values + last; ++value) sum += *value;
  p.out[element()] = sum;
}

template <bool kFixed>
__global__ void pointer_past_static_shared(Params p) {
  static_shared_pointer(p, kFixed ? kThreads - 1 : kThreads);
}

// A static variable keeps its value on the CPU: in the second block it has to be poison again.
__global__ void static_shared_read(Params p, bool write) {
  __shared__ float value;
  if (threadIdx.x == 0 && (write || blockIdx.x == 0)) value = p.in[element()];
  __syncthreads();
  p.out[element()] = value;
}

template <bool kFixed>
__global__ void unwritten_static_shared(Params p) {
  static_shared_read(p, kFixed);
}

#endif

struct Plant {
  const char* name;
  void (*faulty)(Params);
  void (*fixed)(Params);
};

#define PLANT(kernel) {#kernel, kernel<false>, kernel<true>}
constexpr Plant kPlants[] = {
    PLANT(off_by_one_read),
    PLANT(off_by_one_shared_write),
    PLANT(missing_barrier),
    PLANT(missing_second_barrier),
    PLANT(shuffle_instead_of_barrier),
    PLANT(blocks_write_one_element),
    PLANT(divergent_barrier),
    PLANT(unreached_barrier),
    PLANT(mask_without_caller),
    PLANT(mask_of_absent_lanes),
    PLANT(different_masks),
    PLANT(different_functions),
    PLANT(shuffle_of_odd_width),
    PLANT(shuffle_from_absent_lane),
    PLANT(unwritten_output),
    PLANT(unwritten_shared),
    PLANT(misaligned_load),
    PLANT(misaligned_ldg),
    PLANT(misaligned_store),
    PLANT(signed_overflow),
#if !defined(RACNN_EMULATION_THREADS)
    PLANT(off_by_one_static_shared_write),
    PLANT(pointer_past_static_shared),
    PLANT(unwritten_static_shared),
#endif
};
#undef PLANT

using Floats = pybind11::array_t<float, pybind11::array::c_style>;

void run(const std::string& name, bool fixed, const Floats& in, Floats& out) {
  if (in.size() != kSize || out.size() != kSize)
    throw std::invalid_argument("in and out must have SIZE elements");
  for (const Plant& plant : kPlants) {
    if (name != plant.name) continue;
    const cudaError_t error =
        emulation::launch(fixed ? plant.fixed : plant.faulty, dim3(kBlocks), dim3(kThreads),
                          kThreads * sizeof(float), cudaStream_t{}, Params{in.data(), out.mutable_data()});
    if (error != cudaSuccess) throw std::runtime_error("the launch failed");
    return;
  }
  throw std::invalid_argument("no plant of this name: " + name);
}

// What a launch with an empty kernel returns.
int launch_empty(std::array<unsigned, 3> grid, std::array<unsigned, 3> block, size_t shared_bytes) {
  const auto empty = [](Params) {};
  return emulation::launch<Params>(empty, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]),
                                   shared_bytes, cudaStream_t{}, Params{});
}

}  // namespace

PYBIND11_MODULE(planted_faults, m) {
  m.attr("SIZE") = kSize;
  pybind11::list names;
  for (const Plant& plant : kPlants) names.append(plant.name);
  m.attr("NAMES") = names;
  m.def("run", &run, pybind11::arg("name"), pybind11::arg("fixed"), pybind11::arg("input"),
        pybind11::arg("output"));
  m.def("launch_empty", &launch_empty, pybind11::arg("grid"), pybind11::arg("block"),
        pybind11::arg("shared_bytes"));
}
