// SPDX-License-Identifier: BSD-3-Clause
//
// An engine that runs the threads of a block in turn, each as a fiber: fast, and the same from run to run.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <deque>
#include <functional>
#include <mutex>
#include <new>
#include <vector>

#include "sanitizers.h"

namespace emulation {

class Engine {
 public:
  // Fibers of one thread exclude each other anyway.
  struct Mutex {
    void lock() {}
    void unlock() {}
  };
  using Lock = std::unique_lock<Mutex>;

  // `order`: the numbers of the threads, first come first.
  explicit Engine(const std::vector<int>& order)
      : fibers_(order.size()), runnable_(order.begin(), order.end()), unfinished_(order.size()) {}

  // Runs body(i) for each thread i; calls stuck() when all that are left are suspended: it must wake one.
  void run(const std::function<void(int)>& body, const std::function<void()>& stuck) {
    body_ = &body;
    while (unfinished_ > 0) {
      if (runnable_.empty()) stuck();
      const int next = runnable_.front();
      runnable_.pop_front();
      resume(next);
    }
  }

  void suspend(int i, Lock&) { change(fibers_[size_t(i)], scheduler_); }

  void wake(int i) { runnable_.push_back(i); }

  void finish(Lock&) { --unfinished_; }

 private:
  struct Fiber {
    ucontext_t context;
    jmp_buf place;  // where it was left
    bool entered = false;
    Stack stack;
  };

  static constexpr size_t kStackBytes = 256 << 10;
  static constexpr size_t kGuardBytes = 4 << 10;

  // Stack i, with a page below that no one can touch; kept from block to block.
  static void* stack_memory(size_t i) {
    static std::vector<void*> stacks;
    while (stacks.size() <= i) {
      void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
      stacks.push_back(static_cast<char*>(memory) + kGuardBytes);
    }
    return stacks[i];
  }

  void resume(int i) {
    Fiber& fiber = fibers_[size_t(i)];
    if (fiber.stack.bottom == nullptr) {
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = stack_memory(size_t(i));
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.stack.bottom = fiber.context.uc_stack.ss_sp;
      fiber.stack.bytes = kStackBytes;
      makecontext(&fiber.context, enter, 0);
    }
    running_ = this;
    current_ = i;
    change(scheduler_, fiber);
  }

  static void enter() {
    Engine& engine = *running_;
    Fiber& fiber = engine.fibers_[size_t(engine.current_)];
    enter_stack(fiber.stack, engine.scheduler_.stack);
    (*engine.body_)(engine.current_);
    leave_stack(fiber.stack, engine.scheduler_.stack, true);
    go(engine.scheduler_);
  }

  static void change(Fiber& from, Fiber& to) {
    leave_stack(from.stack, to.stack, false);
    leave(from, to);
    enter_stack(from.stack, to.stack);
  }

#if defined(__SANITIZE_ADDRESS__)  // it takes a longjmp for the end of all stack frames
  static void leave(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

  static void go(Fiber& to) { setcontext(&to.context); }
#else  // much faster: no system call
  static void leave(Fiber& from, Fiber& to) {
    from.entered = true;
    if (_setjmp(from.place) == 0) go(to);
  }

  static void go(Fiber& to) {
    if (to.entered) _longjmp(to.place, 1);
    setcontext(&to.context);
  }
#endif

  static inline Engine* running_ = nullptr;  // makecontext passes no pointer

  std::vector<Fiber> fibers_;
  std::deque<int> runnable_;
  size_t unfinished_;
  int current_ = 0;
  const std::function<void(int)>* body_ = nullptr;
  Fiber scheduler_;
};

}  // namespace emulation
