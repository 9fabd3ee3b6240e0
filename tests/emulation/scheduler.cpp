// SPDX-License-Identifier: BSD-3-Clause
//
// Runs a grid: blocks one after another, the threads of a block by an engine. Barriers, shuffles and
// ballots are meetings: a thread that arrives is suspended until all who are expected are there.
#include <array>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "cuda_emulation.h"
#include "sanitizers.h"
#if defined(RACNN_EMULATION_THREADS)
#include "threads.h"
#else
#include "fibers.h"
#endif

// The static shared memory of the program, if it has any (set by the linker).
extern "C" {
[[gnu::weak, gnu::visibility("hidden")]] extern char __start_emulation_shared[];
[[gnu::weak, gnu::visibility("hidden")]] extern char __stop_emulation_shared[];
}

namespace emulation {

constinit thread_local const Indices* self = nullptr;

namespace {

class Block;
struct Thread;

// As float16, bfloat16, float32 and float64 this is NaN, as an integer -1 or the largest.
constexpr int kPoison = 0xff;

constexpr unsigned kMaxBlockThreads = 1024, kMaxBlockZ = 64, kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;
constexpr size_t kMaxSharedBytes = 48 << 10;  // more needs an opt-in that no kernel here asks for

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

bool Meeting::expects(const Thread& thread) const {
  return warp < 0 || (warp == thread.warp() && (mask >> thread.lane() & 1) != 0);
}

struct Stop {};  // ends a thread of a block that failed

std::string describe(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string describe(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

std::string describe(unsigned mask) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[mask >> shift & 15];
  return text;
}

std::string describe(Collective kind) {
  constexpr const char* kNames[] = {"__syncthreads",    "__syncwarp",         "a vote",           "__shfl_sync",
                                    "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  return kNames[size_t(kind)];
}

std::string describe(const Meeting& m) {
  const std::string mask = m.warp < 0 ? "" : " with mask " + describe(m.mask);
  return describe(m.kind) + mask + " at " + describe(m.site);
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

size_t thread_count(const dim3& d) { return size_t(d.x) * d.y * d.z; }

// The bytes between variables of the section belong to AddressSanitizer: no checked write here.
[[gnu::no_sanitize("address", "thread")]] void poison_static_shared() {
  for (volatile char* p = __start_emulation_shared; p != __stop_emulation_shared; ++p) *p = char(kPoison);
}

Block::Block(const Configuration& c, uint3 index, const std::vector<int>& order)
    : alive_(order.size()), engine_(order) {
  if (c.shared_bytes > 0) {
    shared_.reset(operator new(c.shared_bytes, std::align_val_t(16)));
    std::memset(shared_.get(), kPoison, c.shared_bytes);
  }
  threads_.reserve(alive_);
  for (unsigned z = 0; z < c.block.z; ++z) {
    for (unsigned y = 0; y < c.block.y; ++y) {
      for (unsigned x = 0; x < c.block.x; ++x) {
        threads_.push_back({{{x, y, z}, index, c.block, c.grid}, this, int(threads_.size())});
      }
    }
  }
}

std::optional<std::string> Block::run(const std::function<void()>& kernel, void* end_clock) {
  body_ = [this, &kernel, end_clock](int i) {
    Thread& thread = threads_[size_t(i)];
    self = &thread;
    try {
      kernel();
    } catch (const Stop&) {
    }
    exit(thread);
    release(end_clock);
  };
  stuck_ = [this] { stop(who_waits()); };
  engine_.run(body_, stuck_);
  const Hidden hidden;
  return error_;
}

// The first error counts; every thread that waits is woken to find that the block has failed.
void Block::stop(const std::string& message) {
  if (error_) return;
  error_ = message;
  for (const Meeting& m : meetings_) {
    if (m.leaving > 0) continue;
    for (const Thread* thread : m.present) engine_.wake(thread->number);
  }
}

void Block::fail(Engine::Lock&, const std::string& message) {
  stop(message);
  throw Stop{};
}

void Block::fail(const Thread& thread, const std::string& message, const Site& site) {
  const Hidden hidden;
  Engine::Lock lock(mutex_);
  fail(lock, "block " + describe(thread.block) + ", thread " + describe(thread.thread) + ", " + describe(site) +
                 ": " + message);
}

// All who are left wait, each for someone who will not come.
std::string Block::who_waits() const {
  std::string text;
  bool barrier = false;
  for (const Meeting& m : meetings_) {
    if (m.leaving > 0) continue;
    barrier |= m.kind == Collective::kSyncBlock;
    text += std::to_string(m.present.size()) + " threads wait in " + describe(m) + "; ";
  }
  const char* what = barrier ? ": divergent barrier: " : ": divergent warp function: ";
  return "block " + describe(threads_.front().block) + what + text +
         std::to_string(threads_.size() - alive_) + " have returned";
}

Block::Place Block::join(Engine::Lock& lock, const Thread& thread, Collective kind, unsigned mask,
                         const Site& site) {
  const int warp = kind == Collective::kSyncBlock ? -1 : thread.warp();
  const Meeting mine{kind, warp, mask, site};
  const auto fail_here = [&](const std::string& message) {
    fail(lock, "block " + describe(thread.block) + ", thread " + describe(thread.thread) + ": " +
                   describe(mine) + ": " + message);
  };
  if (warp >= 0 && !mine.expects(thread)) fail_here("the calling lane is not in the mask");
  for (Place m = meetings_.begin(); m != meetings_.end(); ++m) {
    if (m->leaving > 0 || m->warp != warp || (warp >= 0 && (m->mask & mask) == 0)) continue;
    if (m->kind != kind || m->mask != mask) fail_here("other lanes of the mask are in " + describe(*m));
    const bool same_site = std::strcmp(m->site.file_name(), site.file_name()) == 0 &&
                           m->site.line() == site.line() && m->site.column() == site.column();
    if (warp < 0 && !same_site) fail_here("divergent barrier: other threads are in " + describe(*m));
    return m;
  }
  for (unsigned lane = 0; warp >= 0 && lane < warpSize; ++lane) {
    const size_t number = size_t(warp) * warpSize + lane;
    if ((mask >> lane & 1) == 0) continue;
    if (number >= threads_.size()) fail_here("the mask names lane " + std::to_string(lane) + ", which does not exist");
    if (threads_[number].exited) fail_here("the mask names lane " + std::to_string(lane) + ", which has returned");
  }
  return meetings_.insert(meetings_.end(), mine);
}

void Block::complete_if_all_present(Meeting& m) {
  const size_t expected = m.warp < 0 ? alive_ : size_t(std::popcount(m.mask));
  if (m.present.size() != expected) return;
  m.leaving = m.present.size();
  for (const Thread* thread : m.present) {
    if (self != thread) engine_.wake(thread->number);
  }
}

void Block::attend(Engine::Lock& lock, Meeting& m, Thread& thread) {
  m.present.push_back(&thread);
  complete_if_all_present(m);
  if (m.leaving == 0) {
    engine_.suspend(thread.number, lock);
    self = &thread;
  }
  if (m.leaving == 0) throw Stop{};
}

void Block::leave(Place m) {
  if (--m->leaving == 0) meetings_.erase(m);
}

void Block::exit(Thread& thread) {
  const Hidden hidden;
  Engine::Lock lock(mutex_);
  thread.exited = true;
  --alive_;
  for (Meeting& m : meetings_) {
    if (m.leaving > 0 || !m.expects(thread)) continue;
    if (m.warp >= 0) {
      stop("block " + describe(thread.block) + ", thread " + describe(thread.thread) +
           " returned while others wait for it in " + describe(m));
    } else {
      complete_if_all_present(m);
    }
  }
  engine_.finish(lock);
}

uint64_t Block::meet(Thread& thread, Collective kind, unsigned mask, uint64_t value, unsigned source,
                     const Site& site) {
  // Only the barriers order memory: shuffles and votes do not.
  const bool orders = kind == Collective::kSyncBlock || kind == Collective::kSyncWarp;
  Place m;
  {
    const Hidden hidden;
    Engine::Lock lock(mutex_);
    if (error_) throw Stop{};
    m = join(lock, thread, kind, mask, site);
    m->values[thread.lane()] = kind == Collective::kBallot ? uint64_t(value) << thread.lane() : value;
  }
  if (orders) release(&*m);
  {
    const Hidden hidden;
    Engine::Lock lock(mutex_);
    if (error_) throw Stop{};
    attend(lock, *m, thread);
  }
  if (orders) acquire(&*m);
  const Hidden hidden;
  Engine::Lock lock(mutex_);
  uint64_t result = 0;
  if (kind == Collective::kBallot) {
    for (uint64_t bit : m->values) result |= bit;
  } else if ((mask >> source & 1) != 0) {
    result = m->values[source];
  } else {
    std::memset(&result, kPoison, sizeof(result));
  }
  leave(m);
  return result;
}

bool reverse_order = false;

// Block n does not begin with thread 0: ThreadSanitizer gives its thread numbers out again, in order, and takes
// threads of one number for one thread. So it would not see two blocks' threads of one index race.
std::vector<int> thread_order(size_t threads, size_t block) {
  std::vector<int> order(threads);
  for (size_t i = 0; i < threads; ++i) order[i] = int((block * 5 + i) % threads);
  if (reverse_order) std::ranges::reverse(order);
  return order;
}

bool within_limits(const Configuration& c) {
  const size_t threads = thread_count(c.block);
  return threads >= 1 && threads <= kMaxBlockThreads && c.block.x <= kMaxBlockThreads &&
         c.block.y <= kMaxBlockThreads && c.block.z <= kMaxBlockZ && thread_count(c.grid) >= 1 &&
         c.grid.x <= kMaxGridX && c.grid.y <= kMaxGridYZ && c.grid.z <= kMaxGridYZ &&
         c.shared_bytes <= kMaxSharedBytes;
}

Thread& current() { return *const_cast<Thread*>(static_cast<const Thread*>(self)); }

}  // namespace

void set_reverse_order(bool reverse) { reverse_order = reverse; }

unsigned lane() { return current().lane(); }

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
  const size_t blocks = thread_count(c.grid);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t n = reverse_order ? blocks - 1 - i : i;
    const uint3 index{unsigned(n % c.grid.x), unsigned(n / c.grid.x % c.grid.y),
                      unsigned(n / c.grid.x / c.grid.y)};
    if (+__start_emulation_shared != +__stop_emulation_shared) {
      acquire(&end_clock);  // static shared memory is the same for all blocks
      poison_static_shared();
    }
    auto block = std::make_unique<Block>(c, index, thread_order(thread_count(c.block), n));
    const std::optional<std::string> error = block->run(kernel, &end_clock);
    {
      const Hidden hidden;
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
