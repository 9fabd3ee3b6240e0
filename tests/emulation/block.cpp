// SPDX-License-Identifier: BSD-3-Clause
#include "block.h"

#include <bit>
#include <cstring>

#include "sanitizers.h"

namespace emulation {

constinit thread_local const Indices* self = nullptr;

namespace {

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
  constexpr const char* kNames[] = {"__syncthreads",  "__syncwarp",       "a vote",         "__shfl_sync",
                                    "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  return kNames[size_t(kind)];
}

std::string describe(const Meeting& m) {
  const std::string mask = m.warp < 0 ? "" : " with mask " + describe(m.mask);
  return describe(m.kind) + mask + " at " + describe(m.site);
}

}  // namespace

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

size_t Block::loads() const {
  size_t sum = 0;
  for (const Thread& thread : threads_) sum += thread.loads;
  return sum;
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
  fail(lock, "block " + describe(thread.block) + ", thread " + describe(thread.thread) + ", " +
                 describe(site) + ": " + message);
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
    if (number >= threads_.size())
      fail_here("the mask names lane " + std::to_string(lane) + ", which does not exist");
    if (threads_[number].exited)
      fail_here("the mask names lane " + std::to_string(lane) + ", which has returned");
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

}  // namespace emulation
