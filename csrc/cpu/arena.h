// SPDX-License-Identifier: BSD-3-Clause
//
// Scratch memory of one call of a kernel on one thread, given back as a whole. Not std::vector: an
// instantiation compiled for AVX-512 could be the one that the linker keeps for everybody.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "kernels.h"

namespace racnn::cpu::RACNN_ISA {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    while (head_ != nullptr) {
      Block* next = head_->next;
      std::free(head_);
      head_ = next;
    }
  }

  // `count` numbers and room for one more vector behind them, 64-byte aligned, uninitialised.
  template <typename T>
  T* take(int64_t count) {
    if (count > kMost / int64_t(sizeof(T))) throw OutOfMemory{size_t(kMost)};
    const size_t bytes = ((size_t(count) + kPadding) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > left_) grow(bytes);
    void* memory = next_;
    next_ += bytes;
    left_ -= bytes;
    return static_cast<T*>(memory);
  }

 private:
  static constexpr size_t kPadding = 16, kAlignment = 64;
  static constexpr int64_t kMost = int64_t(1) << 62;  // bytes: what is added below does not wrap around
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kBlockSize = 0;  // each a block of its own, with red zones around it
#else
  static constexpr size_t kBlockSize = 64 * 1024;
#endif
  struct Block {
    Block* next;
  };

  void grow(size_t bytes) {
    const size_t size = bytes > kBlockSize ? bytes : kBlockSize;
    void* memory = std::malloc(sizeof(Block) + kAlignment + size);
    if (memory == nullptr) throw OutOfMemory{size};
    head_ = new (memory) Block{head_};
    const uintptr_t first = reinterpret_cast<uintptr_t>(head_ + 1);
    next_ = reinterpret_cast<char*>((first + kAlignment - 1) / kAlignment * kAlignment);
    left_ = size;
  }

  Block* head_ = nullptr;
  char* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace racnn::cpu::RACNN_ISA
