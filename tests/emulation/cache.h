// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>

namespace emulation::tracer {

// Fully associative, least recently used first out; lines of four sectors, each filled when it is asked for.
class Cache {
 public:
  explicit Cache(size_t lines = 0) : capacity_(lines) {}

  // Whether the sector was there; from now on it is.
  bool access(uint64_t sector) {
    const uint64_t line = sector / 4;
    const auto bit = uint8_t(1 << sector % 4);
    const auto found = entries_.find(line);
    if (found != entries_.end()) {
      order_.splice(order_.begin(), order_, found->second.place);
      const bool hit = (found->second.sectors & bit) != 0;
      found->second.sectors |= bit;
      return hit;
    }
    if (!order_.empty() && entries_.size() >= capacity_) {
      entries_.erase(order_.back());
      order_.pop_back();
    }
    order_.push_front(line);
    entries_[line] = {order_.begin(), bit};
    return false;
  }

 private:
  struct Entry {
    std::list<uint64_t>::iterator place;
    uint8_t sectors;
  };

  size_t capacity_;
  std::list<uint64_t> order_;  // lines, the last used first
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace emulation::tracer
