// SPDX-License-Identifier: BSD-3-Clause
#include "tracer.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "cache.h"
#include "cuda_emulation.h"

namespace emulation::tracer {

namespace {

struct Access {
  uintptr_t pc;
  uint64_t address;  // region * kRegionBytes + offset: the same in every process
  uint8_t bytes;
  bool is_write;
};

constexpr uint64_t kRegionBytes = uint64_t(1) << 40;

std::vector<Region> known;
std::vector<Launch> launches;
std::vector<std::unordered_set<uint64_t>> written;  // sectors, by region, of the launch at hand
Cache l2;
size_t l1_lines = 0;
uint64_t sampled_units = 1, sampled_blocks = ~uint64_t(0);
bool running = false;                      // a block that is traced
std::vector<std::vector<Access>> threads;  // what each thread of the block did

// Those of one warp by one instruction. Two lanes run one instruction together if it is the n-th time for
// both: approximate where lanes go through a loop differently often.
std::vector<std::vector<Access>> instructions_of(size_t warp) {
  std::vector<std::vector<Access>> instructions;
  std::map<std::pair<uintptr_t, uint32_t>, size_t> index;
  const size_t end = std::min(threads.size(), (warp + 1) * warpSize);
  for (size_t thread = warp * warpSize; thread < end; ++thread) {
    std::unordered_map<uintptr_t, uint32_t> times;
    for (const Access& access : threads[thread]) {
      const auto [place, is_new] = index.try_emplace({access.pc, times[access.pc]++}, instructions.size());
      if (is_new) instructions.emplace_back();
      instructions[place->second].push_back(access);
    }
  }
  return instructions;
}

std::vector<uint64_t> sectors_of(const std::vector<Access>& instruction) {
  std::vector<uint64_t> sectors;
  for (const Access& a : instruction) {
    const uint64_t last = (a.address + a.bytes - 1) / kSectorBytes;
    for (uint64_t sector = a.address / kSectorBytes; sector <= last; ++sector) sectors.push_back(sector);
  }
  std::ranges::sort(sectors);
  sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
  return sectors;
}

void count_instruction(Launch& launch, TracedBlock& block, Cache& l1,
                       const std::vector<Access>& instruction) {
  const bool is_write = instruction.front().is_write;
  const std::vector<uint64_t> sectors = sectors_of(instruction);
  Accesses& accesses = is_write ? launch.stores : launch.loads;
  ++(is_write ? block.stores : block.loads);
  ++accesses.instructions;
  accesses.sectors += sectors.size();
  uint64_t last_line = ~uint64_t(0);
  for (const uint64_t sector : sectors) {
    const uint64_t line = sector * kSectorBytes / kLineBytes;
    accesses.wavefronts += line != last_line;
    last_line = line;
    const size_t region = sector * kSectorBytes / kRegionBytes;
    block.empty = block.empty && !known[region].is_data;
    if (is_write) {
      launch.regions[region].written_sectors += written[region].insert(sector).second;
      l2.access(sector);
    } else if (!l1.access(sector)) {
      ++launch.l2_read_sectors;
      if (!l2.access(sector)) ++launch.regions[region].read_sectors;
    }
  }
}

class Tracer : public Observer {
  void begin_launch(const Configuration& c) override {
    Dl_info info{};
    if (dladdr(c.kernel, &info) == 0 || info.dli_sname == nullptr) {
      throw std::runtime_error("the kernel has no name: it must be visible outside its library");
    }
    launches.push_back({info.dli_sname,
                        {c.grid.x, c.grid.y, c.grid.z},
                        {c.block.x, c.block.y, c.block.z},
                        c.shared_bytes,
                        std::string(static_cast<const char*>(c.params), c.params_bytes),
                        {},
                        {},
                        0,
                        std::vector<DeviceMemory>(known.size()),
                        {}});
    written.assign(known.size(), {});
    threads.assign(c.threads(), {});
    const uint64_t blocks = c.blocks();
    blocks_of_unit_ = blocks % sampled_units == 0 ? blocks / sampled_units : blocks;
    const uint64_t units = blocks / blocks_of_unit_;
    step_ = (blocks_of_unit_ - 1) / sampled_blocks + 1;
    chosen_units_ = std::clamp<uint64_t>(sampled_blocks / blocks_of_unit_, 1, units);
    units_ = units;
  }

  bool wants(size_t block) override {
    const uint64_t unit = block / blocks_of_unit_;
    return unit * chosen_units_ % units_ < chosen_units_ && block % blocks_of_unit_ % step_ == step_ / 2;
  }

  void begin_block(size_t block) override {
    launches.back().blocks.push_back({block, 0, 0, true});
    running = true;
  }

  void end_block() override {
    running = false;
    Launch& launch = launches.back();
    Cache l1(l1_lines);
    for (size_t warp = 0; warp * warpSize < threads.size(); ++warp) {
      for (const std::vector<Access>& instruction : instructions_of(warp)) {
        count_instruction(launch, launch.blocks.back(), l1, instruction);
      }
    }
    for (std::vector<Access>& accesses : threads) accesses.clear();
  }

  uint64_t blocks_of_unit_ = 1, units_ = 1, chosen_units_ = 1, step_ = 1;
};

Tracer the_tracer;

// Shared memory and stacks are in no region.
void record(const void* address, size_t bytes, bool is_write, uintptr_t pc) {
  if (!running) return;
  const auto a = reinterpret_cast<uintptr_t>(address);
  for (size_t r = 0; r < known.size(); ++r) {
    if (a < known[r].begin || a >= known[r].end) continue;
    const uint64_t place = r * kRegionBytes + (a - known[r].begin);
    threads[size_t(thread_number())].push_back({pc, place, uint8_t(bytes), is_write});
    return;
  }
}

}  // namespace

void reset(size_t l1_bytes, size_t l2_bytes) {
  set_observer(&the_tracer);
  known.clear();
  l1_lines = l1_bytes / kLineBytes;
  l2 = Cache(l2_bytes / kLineBytes);
}

const std::vector<Region>& regions() { return known; }

void add_region(const std::string& name, const void* begin, size_t bytes, bool is_data) {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  if (address % kLineBytes != 0)
    throw std::invalid_argument(name + " does not begin at a line of the caches");
  known.push_back({name, address, address + bytes, is_data});
}

void sample(uint64_t units, uint64_t blocks) {
  sampled_units = std::max<uint64_t>(1, units);
  sampled_blocks = std::max<uint64_t>(1, blocks);
}

std::vector<Launch> take_launches() { return std::exchange(launches, {}); }

}  // namespace emulation::tracer

// What the compiler calls for -fsanitize=thread.
#define RACNN_HOOK(NAME, BYTES, IS_WRITE)                                                \
  [[gnu::visibility("default")]] void __tsan_##NAME(void* address) {                     \
    emulation::tracer::record(address, BYTES, IS_WRITE,                                  \
                              reinterpret_cast<uintptr_t>(__builtin_return_address(0))); \
  }
#define RACNN_HOOKS(BYTES)                        \
  RACNN_HOOK(read##BYTES, BYTES, false)           \
  RACNN_HOOK(write##BYTES, BYTES, true)           \
  RACNN_HOOK(unaligned_read##BYTES, BYTES, false) \
  RACNN_HOOK(unaligned_write##BYTES, BYTES, true)

extern "C" {
RACNN_HOOKS(1)
RACNN_HOOKS(2)
RACNN_HOOKS(4)
RACNN_HOOKS(8)
RACNN_HOOKS(16)
void __tsan_read_range(void* address, size_t bytes) {
  emulation::tracer::record(address, bytes, false, reinterpret_cast<uintptr_t>(__builtin_return_address(0)));
}
void __tsan_write_range(void* address, size_t bytes) {
  emulation::tracer::record(address, bytes, true, reinterpret_cast<uintptr_t>(__builtin_return_address(0)));
}
// Of guards of static variables and of counters outside the kernels.
unsigned char __tsan_atomic8_load(const volatile unsigned char* a, int) {
  return __atomic_load_n(a, __ATOMIC_SEQ_CST);
}
unsigned __tsan_atomic32_fetch_add(volatile unsigned* a, unsigned v, int) {
  return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
