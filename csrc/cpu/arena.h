// SPDX-License-Identifier: BSD-3-Clause
//
// Scratch memory of one call of a kernel on one thread. Not std::vector: an instantiation compiled for
// AVX-512 could be the one that the linker keeps for everybody.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

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
    const size_t bytes = (sizeof(Block) + (size_t(count) + kPadding) * sizeof(T) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    head_ = new (memory) Block{head_};
    return reinterpret_cast<T*>(head_ + 1);
  }

 private:
  static constexpr int64_t kPadding = 16;
  struct alignas(64) Block {
    Block* next;
  };
  Block* head_ = nullptr;
};

}  // namespace racnn::cpu::RACNN_ISA
