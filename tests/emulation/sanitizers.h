// SPDX-License-Identifier: BSD-3-Clause
//
// What the sanitizers have to be told about stacks and about the order that CUDA's barriers give.
// Every function is empty in a build without its sanitizer.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace emulation {

// The stack that a fiber leaves or enters, for AddressSanitizer.
struct Stack {
  void* fake = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
};

// `last`: the leaving stack is not entered again.
inline void leave_stack([[maybe_unused]] Stack& from, [[maybe_unused]] const Stack& to,
                        [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake, to.bottom, to.bytes);
#endif
}

inline void enter_stack([[maybe_unused]] const Stack& to, [[maybe_unused]] Stack& from) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to.fake, &from.bottom, &from.bytes);
#endif
}

// For ThreadSanitizer, what precedes release(x) in one thread happens before what follows acquire(x) in
// another. Called where CUDA orders memory, and only there.
inline void release([[maybe_unused]] void* clock) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(clock);
#endif
}

inline void acquire([[maybe_unused]] void* clock) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(clock);
#endif
}

// In its scope ThreadSanitizer sees neither memory accesses nor locks: the emulation's own locks must not
// order the kernel's accesses.
class Hidden {
 public:
#if defined(__SANITIZE_THREAD__)
  Hidden() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Hidden() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#else
  Hidden() {}
#endif
  Hidden(const Hidden&) = delete;
  Hidden& operator=(const Hidden&) = delete;
};

}  // namespace emulation
