// SPDX-License-Identifier: BSD-3-Clause
//
// Lines: what a slot needs of the source, contracted along y and staged in shared memory, from where it is
// contracted along x. A line holds the channels of a plane beside each other whatever the memory format,
// pixel x at x * interleaved; where the source has nothing it holds zeros. Threads make it in *units* of
// neighbouring elements, up to 16 bytes of the source, one load for each source row.
#pragma once

#include "numeric.cuh"
#include "tiling.cuh"

namespace racnn {

constexpr int kStagedBytes = 16 << 10;  // in two buffers: while one is read the other is written

template <typename Source>
constexpr int32_t kUnit = sizeof(Source) == 8   ? 2
                          : sizeof(Source) == 4 ? 4
                                                : 8;
template <typename T>
constexpr int32_t kStaged = kStagedBytes / 2 / sizeof(T);  // numbers of a buffer

template <typename Source>
RACNN_HOST_DEVICE int32_t unit_begin(int32_t element) {
  return element & ~(kUnit<Source> - 1);
}

// Where the lines of a source come from. kWords or `words`: every unit is one aligned word.
template <typename Source, bool kWords>
struct LineSource {
  static constexpr int32_t kCount = kUnit<Source>;
  using Elements = Pack<Source, kCount>;

  int64_t x, c;  // strides
  Divisor interleaved;
  int32_t extent;  // elements of a line
  bool words = kWords;

  struct Unit {
    const Source* from;  // in the first row
    unsigned mask;       // bit k: element k exists
  };

  // Elements [element, element + kCount) of a line; `plane` is its source's first pixel.
  __device__ __forceinline__ Unit unit(const Source* plane, int32_t element) const {
    unsigned mask = 0;
    RACNN_UNROLL
    for (int k = 0; k < (kWords ? 1 : kCount); ++k)
      mask |= unsigned(element >= 0 && element + k < extent) << k;
    const int32_t pixel = mask ? interleaved.quotient(element) : 0;
    return {plane + pixel * x + (mask ? element - pixel * int32_t(interleaved.by) : 0) * c, mask};
  }

  // The unit's elements in the row that begins `row` bytes after the first; there is one.
  __device__ __forceinline__ Elements load(const Unit& unit, int64_t row) const {
    const Source* const from = add_bytes(unit.from, row);
    if (kWords || words) return load_pack<kCount>(from);
    const int64_t step = interleaved.by == 1 ? x : c;
    Elements elements{};
    RACNN_UNROLL
    for (int k = 0; k < kCount; ++k) {
      if (unit.mask >> k & 1) elements.values[k] = __ldg(from + k * step);
    }
    return elements;
  }
};

// Whether all units of a source are aligned words.
template <typename Source>
bool in_words(const Source* data, int32_t width, int64_t channels, int32_t interleaved, const Strides& s) {
  constexpr int32_t kCount = kUnit<Source>;
  const bool flat = interleaved == 1 ? s.x == 1 : s.x == interleaved && s.c == 1;
  const bool chunks = interleaved % kCount == 0 && s.x % kCount == 0 && s.c == 1;
  return (flat || chunks) &&
         can_pack<kCount>(data, int64_t(width) * interleaved,
                          {s.b, s.k, s.y, channels > interleaved ? interleaved * s.c : 0});
}

template <bool kWords, typename P>
__device__ __forceinline__ LineSource<typename P::Source, kWords> line_source(const P& p) {
  return {p.source_strides.x, p.source_strides.c, p.divisors.interleaved,
          p.source_width() * p.tiling.interleaved, kWords || (!P::kTwoEntries && p.words)};
}

struct Place {
  int32_t image, window;  // the window on its image
  int32_t source;         // forward: the image that a crop is cut out of; kOutside: there is none
};

// Where crop n of a forward pass is. Its source is found here, once and early: later registers are scarce.
template <typename P>
__device__ __forceinline__ Place place_of(const P& p, int32_t n) {
  const int32_t image = p.divisors.windows.quotient(n);
  const bool has_index = kHasWindows<typename P::Taps> && p.index.of_crop != nullptr;
  return {image, n - image * int32_t(p.shape.windows), has_index ? int32_t(p.index.image_of(n)) : image};
}

// The number of the crop at a place.
template <typename P>
__device__ __forceinline__ int64_t crop_at(const P& p, const Place& place) {
  if constexpr (P::kInverse && kHasWindows<typename P::Taps>) {
    return (place.image & p.image_mask) * p.shape.windows + place.window;
  }
  return place.image * p.shape.windows + place.window;
}

// The source's first pixel of a plane, counted in planes of the whole image; of crops, the window's.
template <typename P>
__device__ __forceinline__ const typename P::Source* source_plane(const P& p, const Place& place,
                                                                  int32_t plane) {
  const Strides& s = p.source_strides;
  return p.source + (P::kInverse ? place.image * s.b + place.window * s.k : place.source * s.b) +
         int64_t(plane) * p.tiling.interleaved * s.c;
}

template <typename P>
__device__ __forceinline__ int64_t row_bytes(const P& p) {
  return p.source_strides.y * int64_t(sizeof(typename P::Source));
}

// A pass of all threads over a tile: so many of its rows in one plane or, if there are fewer, all of them in
// several planes. A slot is a row of a plane, slot s row s % rows of plane s / rows; those that are left of
// the tile come first.
struct Pass {
  int32_t rows, planes;

  __device__ __forceinline__ Pass(const Tile& tile, int32_t most_slots)
      : rows(lesser(tile.rows, most_slots)), planes(lesser(tile.planes, quotient(most_slots, rows))) {}

  __device__ __forceinline__ int32_t slots() const { return rows * planes; }

  // From these on.
  __device__ __forceinline__ int32_t slots_left(const Tile& tile, int32_t row, int32_t plane) const {
    return lesser(rows, tile.rows - row) * lesser(planes, tile.planes - plane);
  }
};

// What a thread does of a pass: lane `lane` of the slots slot, slot + step, ... There are none for the last
// threads, beyond whole slots: theirs begin behind all.
struct PassShare {
  int32_t lane, slot, step;

  static constexpr int32_t kNone = 1 << 16;

  // `slot` and `step` of the block's threads, with `lanes` side by side.
  __device__ __forceinline__ PassShare(int32_t lanes, int32_t slot, int32_t step)
      : lane(int32_t(threadIdx.x) - slot * lanes), slot(slot), step(step) {
    if (slot < step) return;
    this->lane = 0;
    this->slot = kNone;
  }

  // Lines of so many units, in the slots of a pass.
  static __device__ __forceinline__ PassShare of_units(int32_t units, const Pass& pass) {
    return {units, quotient(threadIdx.x, units), lesser(quotient(kThreads, units), pass.slots())};
  }
};

// A slot of a pass: its row of the pass, and where its elements are in source and result. Within a tile
// offsets fit into 32 bits (launch_contraction).
struct alignas(16) Slot {
  int32_t row, source, result;
};

template <typename P>
__device__ __forceinline__ void make_slots(const P& p, const Pass& pass, Slot* slots) {
  const int32_t s = threadIdx.x, channels = p.tiling.interleaved;
  if (s >= pass.slots()) return;
  const int32_t plane = quotient(s, pass.rows), row = s - plane * pass.rows;
  slots[s] = {row, plane * int32_t(channels * p.source_strides.c),
              row * int32_t(p.result_strides.y) + plane * int32_t(channels * p.result_strides.c)};
}

// What all columns of a tile read of a line, in elements. Where a pass has no room for it in shared memory it
// is staged in segments, of the lines' pitch.
template <typename Source>
struct LineSpan {
  static constexpr int32_t kCount = kUnit<Source>;
  int32_t begin, end, pitch;

  // Pixels [first, last) in the slots of a pass, for which there are `room` numbers.
  static __device__ __forceinline__ LineSpan of(int32_t first, int32_t last, int32_t interleaved,
                                                int32_t room, const Pass& pass) {
    const int32_t begin = unit_begin<Source>(first * interleaved), end = last * interleaved;
    const int32_t most_units = lesser(kThreads, quotient(room / kCount, pass.slots()));
    return {begin, end, lesser((end - begin + kCount - 1) / kCount, most_units) * kCount};
  }

  __device__ __forceinline__ int32_t units(int32_t segment) const {
    return (lesser(pitch, end - segment) + kCount - 1) / kCount;
  }
};

// The lines of the first `count` slots of a pass, in which the thread has one unit of kUnit elements, kLines
// of each, kStep numbers apart. blend(row of the pass, unit, values) contracts it along y.
template <int32_t kCount, int kLines = 1, int32_t kStep = 0, typename T, typename Unit, typename Blend>
__device__ __forceinline__ void make_lines(const PassShare& share, const Unit& unit, const Slot* slots,
                                           int32_t count, int32_t pitch, T* lines, const Blend& blend) {
  constexpr int kWord = 16 / sizeof(T);
  T* to = lines + share.slot * pitch + share.lane * kCount;
  RACNN_NO_UNROLL
  for (int32_t s = share.slot; s < count; s += share.step) {
    const Slot slot = slots[s];
    Pack<T, kCount> values[kLines]{};
    blend(slot.row, Unit{unit.from + slot.source, unit.mask}, values);
    RACNN_UNROLL
    for (int l = 0; l < kLines; ++l) {
      RACNN_UNROLL
      for (int k = 0; k < kCount; k += kWord) {
        Pack<T, kWord> word;
        RACNN_UNROLL
        for (int v = 0; v < kWord; ++v) word.values[v] = values[l].values[k + v];
        store_pack(to + l * kStep + k, word);
      }
    }
    to += share.step * pitch;
  }
}

}  // namespace racnn
