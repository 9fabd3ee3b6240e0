// SPDX-License-Identifier: BSD-3-Clause
//
// Counts what emulated kernels do to global memory. The kernels are compiled with -fsanitize=thread and
// linked to the hooks in tracer.cpp in the place of ThreadSanitizer, so each of their accesses is seen and no
// kernel knows of it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace emulation::tracer {

constexpr size_t kSectorBytes = 32, kLineBytes = 128;

// An array in global memory. `is_data`: not a window or a workspace, so a block that does not touch any such
// array has nothing to do.
struct Region {
  std::string name;
  uintptr_t begin, end;  // begin: a multiple of kLineBytes
  bool is_data;
};

// 32-byte sectors that missed in L2, and that were written, of one region.
struct DeviceMemory {
  uint64_t read_sectors = 0, written_sectors = 0;
};

// Of one direction, by warp instructions. Wavefronts: 128-byte lines of each instruction.
struct Accesses {
  uint64_t instructions = 0, sectors = 0, wavefronts = 0;
};

struct TracedBlock {
  uint64_t number, loads, stores;  // warp instructions
  bool empty;                      // touched no data
};

struct Launch {
  std::string kernel;  // mangled
  std::array<uint32_t, 3> grid, block;
  uint64_t shared_bytes;
  std::string params;  // their bytes
  Accesses loads, stores;
  uint64_t l2_read_sectors = 0;
  std::vector<DeviceMemory> regions;  // in the order in which they were added
  std::vector<TracedBlock> blocks;
};

// Forgets all regions, and what the caches hold. Each block has an L1 of `l1_bytes` for itself.
void reset(size_t l1_bytes, size_t l2_bytes);
const std::vector<Region>& regions();
void add_region(const std::string& name, const void* begin, size_t bytes, bool is_data);

// Launches are made of `units` equal runs of blocks (images, say). Trace whole units, evenly chosen, of about
// `blocks` blocks together; if one has more, blocks evenly chosen of it.
void sample(uint64_t units, uint64_t blocks);

std::vector<Launch> take_launches();

}  // namespace emulation::tracer
