// SPDX-License-Identifier: BSD-3-Clause
//
// A block that runs: its threads, its shared memory, and the meetings of its threads. Barriers, shuffles and
// votes are meetings: a thread that arrives is suspended until all who are expected are there.
#pragma once

#include <array>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "cuda_emulation.h"
#if defined(RACNN_EMULATION_THREADS)
#include "threads.h"
#else
#include "fibers.h"
#endif

namespace emulation {

class Block;
struct Thread;

// As float16, bfloat16, float32 and float64 this is NaN, as an integer -1 or the largest.
constexpr int kPoison = 0xff;

struct Meeting {
  Collective kind;
  int warp;       // -1: the whole block
  unsigned mask;  // the lanes expected
  Site site;      // of the first to arrive
  std::vector<Thread*> present{};
  std::array<uint64_t, 32> values{};
  size_t leaving = 0;  // how many of those present have yet to read the values; 0: not complete

  bool expects(const Thread& thread) const;
};

struct Thread : Indices {
  Block* owner;
  int number;  // in the block
  bool exited = false;

  int warp() const { return number / warpSize; }
  unsigned lane() const { return unsigned(number) % warpSize; }
};

inline bool Meeting::expects(const Thread& thread) const {
  return warp < 0 || (warp == thread.warp() && (mask >> thread.lane() & 1) != 0);
}

struct AlignedDelete {
  void operator()(void* memory) const { operator delete(memory, std::align_val_t(16)); }
};

class Block {
 public:
  Block(const Configuration& configuration, uint3 index, const std::vector<int>& order);

  // Returns what went wrong, if anything did.
  std::optional<std::string> run(const std::function<void()>& kernel, void* end_clock);

  uint64_t meet(Thread& thread, Collective kind, unsigned mask, uint64_t value, unsigned source,
                const Site& site);
  [[noreturn]] void fail(Engine::Lock& lock, const std::string& message);
  [[noreturn]] void fail(const Thread& thread, const std::string& message, const Site& site);
  void* shared() const { return shared_.get(); }
  size_t loads() const;  // of all its threads, once it has run

 private:
  using Place = std::list<Meeting>::iterator;

  Place join(Engine::Lock& lock, const Thread& thread, Collective kind, unsigned mask, const Site& site);
  void attend(Engine::Lock& lock, Meeting& meeting, Thread& thread);
  void leave(Place meeting);
  void complete_if_all_present(Meeting& meeting);
  void exit(Thread& thread);
  void stop(const std::string& message);
  std::string who_waits() const;

  std::vector<Thread> threads_;
  std::unique_ptr<void, AlignedDelete> shared_;
  std::list<Meeting> meetings_;
  size_t alive_;
  std::optional<std::string> error_;
  Engine::Mutex mutex_;
  Engine engine_;
  std::function<void(int)> body_;
  std::function<void()> stuck_;
};

}  // namespace emulation
