// SPDX-License-Identifier: BSD-3-Clause
//
// Runs a grid, blocks one after another, within the limits of a GPU.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block.h"
#include "cuda_emulation.h"
#include "sanitizers.h"

// The static shared memory of the program, if it has any (set by the linker).
extern "C" {
[[gnu::weak, gnu::visibility("hidden")]] extern char __start_emulation_shared[];
[[gnu::weak, gnu::visibility("hidden")]] extern char __stop_emulation_shared[];
}

namespace emulation {

namespace {

constexpr unsigned kMaxBlockThreads = 1024, kMaxBlockZ = 64, kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;
constexpr size_t kMaxSharedBytes = 48 << 10;  // more needs an opt-in that no kernel here asks for

// The bytes between variables of the section belong to AddressSanitizer: no checked write here.
[[gnu::no_sanitize("address", "thread")]] void poison_static_shared() {
  for (volatile char* p = __start_emulation_shared; p != __stop_emulation_shared; ++p) *p = char(kPoison);
}

bool reverse_order = false;
std::vector<Launch> launches;
Observer* observer = nullptr;

// Block n does not begin with thread 0: ThreadSanitizer gives its thread numbers out again, in order, and
// takes threads of one number for one thread. So it would not see two blocks' threads of one index race.
std::vector<int> thread_order(size_t threads, size_t block) {
  std::vector<int> order(threads);
  for (size_t i = 0; i < threads; ++i) order[i] = int((block * 5 + i) % threads);
  if (reverse_order) std::ranges::reverse(order);
  return order;
}

bool within_limits(const Configuration& c) {
  const size_t threads = c.threads();
  return threads >= 1 && threads <= kMaxBlockThreads && c.block.x <= kMaxBlockThreads &&
         c.block.y <= kMaxBlockThreads && c.block.z <= kMaxBlockZ && c.blocks() >= 1 &&
         c.grid.x <= kMaxGridX && c.grid.y <= kMaxGridYZ && c.grid.z <= kMaxGridYZ &&
         c.shared_bytes <= kMaxSharedBytes;
}

Thread& current() { return *const_cast<Thread*>(static_cast<const Thread*>(self)); }

}  // namespace

void set_reverse_order(bool reverse) { reverse_order = reverse; }

void set_observer(Observer* o) { observer = o; }

std::vector<Launch> take_launches() { return std::exchange(launches, {}); }

unsigned lane() { return current().lane(); }

int thread_number() { return current().number; }

void* shared_memory() { return current().owner->shared(); }

uint64_t meet(Collective kind, unsigned mask, uint64_t value, unsigned source, const Site& site) {
  Thread& thread = current();
  return thread.owner->meet(thread, kind, mask, value, source, site);
}

void fail(const char* message, const Site& site) {
  const Thread& thread = current();
  thread.owner->fail(thread, message, site);
}

cudaError_t run(const Configuration& c, const std::function<void()>& kernel) {
  if (!within_limits(c)) return cudaErrorInvalidConfiguration;
  char end_clock = 0;  // all threads happen before what follows the launch
  const size_t blocks = c.blocks();
  launches.push_back({blocks, 0});
  if (observer != nullptr) observer->begin_launch(c);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t n = reverse_order ? blocks - 1 - i : i;
    if (observer != nullptr && !observer->wants(n)) continue;
    const uint3 index{unsigned(n % c.grid.x), unsigned(n / c.grid.x % c.grid.y),
                      unsigned(n / c.grid.x / c.grid.y)};
    if (+__start_emulation_shared != +__stop_emulation_shared) {
      acquire(&end_clock);  // static shared memory is the same for all blocks
      poison_static_shared();
    }
    auto block = std::make_unique<Block>(c, index, thread_order(c.threads(), n));
    if (observer != nullptr) observer->begin_block(n);
    const std::optional<std::string> error = block->run(kernel, &end_clock);
    if (observer != nullptr) observer->end_block();
    {
      const Hidden hidden;
      launches.back().idle += block->loads() == 0;
      block.reset();
    }
    if (error) {
      acquire(&end_clock);
      throw Error(*error);
    }
  }
  acquire(&end_clock);
  return cudaSuccess;
}

}  // namespace emulation
