// SPDX-License-Identifier: BSD-3-Clause
//
// What a CUDA kernel needs of its language, for a plain C++ compiler: kernels that include this header
// run on the CPU, every CUDA thread on a stack of its own, with real barriers and checked warp functions.
// The types, the error codes and the 16-bit floats are CUDA's own host headers. See README.md.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <type_traits>
#include <vector>

// Static shared memory: one instance is enough, since blocks run one after another. The section lets
// the scheduler poison it. In templates GCC ignores the section, so there it would not be poisoned.
#undef __shared__
#define __shared__ static __attribute__((section("emulation_shared")))

#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (emulation::self->thread)
#define blockIdx (emulation::self->block)
#define blockDim (emulation::self->block_dim)
#define gridDim (emulation::self->grid_dim)

constexpr int warpSize = 32;

namespace emulation {

using Site = std::source_location;

// A kernel did what a GPU leaves undefined: thrown by launch() once the block has stopped.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The built-in variables of a CUDA thread.
struct Indices {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  mutable size_t loads = 0;  // by __ldg
};

extern constinit thread_local const Indices* self;

enum class Collective : uint8_t {
  kSyncBlock,
  kSyncWarp,
  kBallot,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor
};

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  const void* kernel = nullptr;  // the function, and what it was called with
  const void* params = nullptr;
  size_t params_bytes = 0;

  size_t blocks() const { return size_t(grid.x) * grid.y * grid.z; }
  size_t threads() const { return size_t(block.x) * block.y * block.z; }
};

// Is told of what runs. The build that counts (tracer.cpp) has one, the others none.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void begin_launch(const Configuration& configuration) = 0;
  virtual bool wants(size_t block) = 0;  // the others are left out
  virtual void begin_block(size_t block) = 0;
  virtual void end_block() = 0;
};

void set_observer(Observer* observer);

// Run blocks and threads from the last to the first: a right kernel gives the same bits.
void set_reverse_order(bool reverse);

cudaError_t run(const Configuration& configuration, const std::function<void()>& kernel);

struct Launch {
  size_t blocks;
  size_t idle;  // those that loaded nothing by __ldg
};

// What was launched since the last call.
std::vector<Launch> take_launches();

// Dynamic shared memory of the calling block: as many bytes as were asked for at the launch.
void* shared_memory();

// All lanes named in `mask` (kSyncBlock: all threads of the block) meet. Returns the value of lane `source`,
// poison if it takes no part; for kBallot the mask of the lanes whose value is not zero.
uint64_t meet(Collective kind, unsigned mask, uint64_t value, unsigned source, const Site& site);

[[noreturn]] void fail(const char* message, const Site& site);

unsigned lane();

int thread_number();  // in the block

template <typename T>
void check_aligned(const T* pointer, const Site& site) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignof(T) != 0) fail("misaligned load", site);
}

template <typename Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                   const std::type_identity_t<Params>& params) {
  static_assert(std::is_trivially_copyable_v<Params>, "kernel parameters are copied byte by byte");
  static_assert(sizeof(Params) <= 4096, "kernel parameters are limited to 4 KiB");
  const Configuration c{grid,    block,         shared_bytes, reinterpret_cast<const void*>(kernel),
                        &params, sizeof(Params)};
  return run(c, [&] { kernel(params); });
}

// `width` splits the warp into segments, `source` is a lane of the caller's own segment.
template <typename T>
T shuffle(Collective kind, unsigned mask, T value, unsigned source, int width, const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  if (width < 1 || width > warpSize || !std::has_single_bit(unsigned(width))) {
    fail("the width of a shuffle must be a power of two up to 32", site);
  }
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet(kind, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation

inline void __syncthreads(const emulation::Site& site = emulation::Site::current()) {
  emulation::meet(emulation::Collective::kSyncBlock, 0, 0, 0, site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const emulation::Site& site = emulation::Site::current()) {
  emulation::meet(emulation::Collective::kSyncWarp, mask, 0, emulation::lane(), site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const emulation::Site& site = emulation::Site::current()) {
  return unsigned(emulation::meet(emulation::Collective::kBallot, mask, predicate != 0, 0, site));
}

inline int __any_sync(unsigned mask, int predicate,
                      const emulation::Site& site = emulation::Site::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate,
                      const emulation::Site& site = emulation::Site::current()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              const emulation::Site& site = emulation::Site::current()) {
  const unsigned lane = emulation::lane(), last = unsigned(width) - 1;
  return emulation::shuffle(emulation::Collective::kShuffle, mask, value,
                            (lane & ~last) | (unsigned(source) & last), width, site);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 const emulation::Site& site = emulation::Site::current()) {
  const unsigned lane = emulation::lane(), in_segment = lane & (unsigned(width) - 1);
  return emulation::shuffle(emulation::Collective::kShuffleUp, mask, value,
                            in_segment >= delta ? lane - delta : lane, width, site);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   const emulation::Site& site = emulation::Site::current()) {
  const unsigned lane = emulation::lane(), in_segment = lane & (unsigned(width) - 1);
  return emulation::shuffle(emulation::Collective::kShuffleDown, mask, value,
                            in_segment + delta < unsigned(width) ? lane + delta : lane, width, site);
}

// As the hardware has it, a lane of a later segment cannot be read.
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  const emulation::Site& site = emulation::Site::current()) {
  const unsigned lane = emulation::lane(), source = lane ^ unsigned(lane_mask);
  const bool readable = source <= (lane | (unsigned(width) - 1));
  return emulation::shuffle(emulation::Collective::kShuffleXor, mask, value, readable ? source : lane, width,
                            site);
}

// The position of the lowest bit that is set, from 1 on; 0 if there is none.
inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(unsigned(bits)) + 1; }

// On a GPU within two units in the last place.
inline float __fdividef(float a, float b) { return a / b; }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

inline int __popc(unsigned bits) { return std::popcount(bits); }

template <typename T>
T __ldg(const T* pointer, const emulation::Site& site = emulation::Site::current()) {
  emulation::check_aligned(pointer, site);
  ++emulation::self->loads;
  return *pointer;
}

using std::max;
using std::min;
