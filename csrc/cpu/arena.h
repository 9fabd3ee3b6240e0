// SPDX-License-Identifier: BSD-3-Clause
//
// Scratch memory of a kernel on one thread, given back as a whole. Not std::vector: an instantiation compiled
// for AVX-512 could be the one that the linker keeps for everybody.
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
  ~Arena() { give_back(); }

  // All that was taken may be taken again: from one block with room for it, unless that is very much.
  void clear() {
    if (head_ != nullptr && head_->next == nullptr && head_->size <= kMostKept) return rewind(head_->size);
    give_back();
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
  static constexpr size_t kBlockSize = 0, kMostKept = 0;  // each a block of its own, with red zones around it
#else
  static constexpr size_t kBlockSize = 64 * 1024, kMostKept = 4096 * 1024;
#endif
  struct Block {
    Block* next;
    size_t size;
  };

  void give_back() {
    next_block_ = lesser(greater(taken_, kBlockSize), kMostKept);
    taken_ = left_ = 0;
    while (head_ != nullptr) {
      Block* next = head_->next;
      std::free(head_);
      head_ = next;
    }
  }

  void grow(size_t bytes) {
    const size_t size = greater(bytes, next_block_);
    void* memory = std::malloc(sizeof(Block) + kAlignment + size);
    if (memory == nullptr) throw OutOfMemory{size};
    head_ = new (memory) Block{head_, size};
    taken_ += size;
    rewind(size);
  }

  void rewind(size_t size) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(head_ + 1);
    next_ = reinterpret_cast<char*>((first + kAlignment - 1) / kAlignment * kAlignment);
    left_ = size;
  }

  Block* head_ = nullptr;
  char* next_ = nullptr;
  size_t left_ = 0;
  size_t taken_ = 0;  // bytes of all blocks
  size_t next_block_ = kBlockSize;
};

// Of this thread, kept from call to call: malloc might give the pages back to the system each time and fetch
// them again, which takes longer than a small crop.
inline Arena& scratch() {
  static thread_local Arena arena;
  return arena;
}

}  // namespace racnn::cpu::RACNN_ISA
