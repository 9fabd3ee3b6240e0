// SPDX-License-Identifier: BSD-3-Clause
//
// An engine that runs the threads of a block at the same time, each as a thread of the operating system:
// for ThreadSanitizer, and for results that must not depend on who comes first.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "sanitizers.h"

namespace emulation {

class Engine {
 public:
  using Mutex = std::mutex;
  using Lock = std::unique_lock<Mutex>;

  // `order`: the numbers of the threads, first come first.
  explicit Engine(std::vector<int> order)
      : order_(std::move(order)),
        slots_(std::make_unique<Slot[]>(order_.size())),
        runnable_(order_.size()),
        unfinished_(order_.size()) {}

  // Runs body(i) for each thread i; calls stuck() when all that are left are suspended: it must wake one.
  void run(const std::function<void(int)>& body, const std::function<void()>& stuck) {
    stuck_ = &stuck;
    std::vector<std::thread> threads;
    for (const int i : order_) threads.emplace_back(std::cref(body), i);
    const Hidden hidden;  // the end of a block orders nothing for the next
    for (std::thread& thread : threads) thread.join();
  }

  void suspend(int i, Lock& lock) {
    slots_[i].awake = false;
    if (--runnable_ == 0) (*stuck_)();
    slots_[i].woken.wait(lock, [&] { return slots_[i].awake; });
  }

  void wake(int i) {
    slots_[i].awake = true;
    slots_[i].woken.notify_one();
    ++runnable_;
  }

  void finish(Lock&) {
    --unfinished_;
    if (--runnable_ == 0 && unfinished_ > 0) (*stuck_)();
  }

 private:
  struct Slot {
    std::condition_variable woken;
    bool awake = true;
  };

  std::vector<int> order_;
  std::unique_ptr<Slot[]> slots_;
  size_t runnable_;
  size_t unfinished_;
  const std::function<void()>* stuck_ = nullptr;
};

}  // namespace emulation
