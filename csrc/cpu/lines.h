// SPDX-License-Identifier: BSD-3-Clause
//
// From a row of the image to output lines: the horizontal half of a crop.
//
// Pixels whose two taps lie inside the image form one contiguous run, contracted as a band; the others
// (window over the edge of the image) are done one by one and never read outside.
#pragma once

#include "band.h"
#include "taps.h"
#include "units.h"

namespace racnn::cpu::RACNN_ISA {

// Beyond this reduction in size a row is mostly skipped: pixels are fetched one by one.
constexpr int64_t kSparseReduction = 8;

// One set of weights of all pixels of a line: the interpolation itself, or one of its derivatives.
template <typename T>
struct WeightSet {
  T* lower;  // [pixels]
  T* upper;  // [pixels]
  T* band;   // the same for the inner run, as contract wants it

  void set(int64_t j, T w_lower, T w_upper) const {
    lower[j] = w_lower;
    upper[j] = w_upper;
  }
};

template <typename T, int kSets>
struct LineMap {
  int64_t pixels, step;
  int32_t begin, end;   // the inner run of pixels
  int32_t first_pixel;  // of the image, that it reads
  int32_t span;         // pixels of the image that it reads
  int32_t* lower;       // [pixels], kOutside included
  int32_t* upper;
  Band<T> band;
  WeightSet<T> sets[kSets];
  T* buffer;  // for a widened row

  int64_t size() const { return pixels * step; }
};

// The first weight set is that of `taps`; the caller fills the others.
template <typename T, int kSets>
LineMap<T, kSets> make_line_map(Arena& arena, const AxisTaps<T>& taps, int64_t step) {
  LineMap<T, kSets> map{};
  map.pixels = taps.out;
  map.step = step;
  map.lower = arena.take<int32_t>(taps.out);
  map.upper = arena.take<int32_t>(taps.out);
  for (WeightSet<T>& set : map.sets) {
    set.lower = arena.take<T>(taps.out);
    set.upper = arena.take<T>(taps.out);
  }
  for (int32_t j = 0; j < taps.out; ++j) {
    map.lower[j] = taps[j].lower;
    map.upper[j] = taps[j].upper;
    map.sets[0].set(j, taps[j].w_lower, taps[j].w_upper);
  }
  return map;
}

// Call when all sets are filled.
template <typename T, int kSets>
void finish_line_map(Arena& arena, LineMap<T, kSets>& map) {
  const auto inner = [&](int32_t j) { return map.lower[j] != kOutside && map.upper[j] == map.lower[j] + 1; };
  while (map.begin < map.pixels && !inner(map.begin)) ++map.begin;
  map.end = map.begin;
  // Windows move to the right all the time; tables that come from elsewhere need not.
  const auto goes_on = [&](int32_t j) { return j == map.begin || map.lower[j] >= map.lower[j - 1]; };
  while (map.end < map.pixels && inner(map.end) && goes_on(map.end)) ++map.end;
  if (map.end > map.begin) {
    map.first_pixel = map.lower[map.begin];
    map.span = map.upper[map.end - 1] + 1 - map.first_pixel;
    if (map.span > kSparseReduction * (map.end - map.begin) + 2) {
      map.end = map.begin;
      map.span = 0;
    }
  }
  const int64_t run = map.end - map.begin;
  int32_t* first = arena.take<int32_t>(run);
  for (int64_t i = 0; i < run; ++i) first[i] = map.lower[map.begin + i] - map.first_pixel;
  map.band = make_band<T>(arena, first, run, map.step, 2, map.span);
  for (WeightSet<T>& set : map.sets) {
    set.band = make_weights(arena, map.band);
    for (int64_t i = 0; i < run; ++i) {
      set_weight(map.band, set.band, i, 0, set.lower[map.begin + i]);
      set_weight(map.band, set.band, i, 1, set.upper[map.begin + i]);
    }
  }
  map.buffer = arena.take<T>(int64_t(map.span) * map.step + kLanes);
}

// `n` pixels of `step` numbers each, as accumulation type: where they lie, or copied into `buffer`.
template <typename From, typename T>
RACNN_INLINE const T* line_of(const From* from, int64_t pixel_stride, int64_t channel_stride, int64_t n,
                              int64_t step, T* buffer) {
  if (step == 1 || (channel_stride == 1 && pixel_stride == step)) {
    const int64_t stride = step == 1 ? pixel_stride : 1;
    if constexpr (std::is_same_v<From, T>) {
      if (stride == 1) return from;
    }
    widen_line(from, stride, n * step, buffer);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < step; ++c) {
        buffer[i * step + c] = widen(from[i * pixel_stride + c * channel_stride]);
      }
    }
  }
  return buffer;
}

// A line of g with zeros behind it, so that whole vectors can be used.
template <typename Grad, typename T>
const T* padded_grad_line(const Grad* row, const Strides& strides, const PlaneLayout& layout, int64_t pixels,
                          T* buffer) {
  const T* line = line_of(row, strides.x, strides.c, pixels, layout.step, buffer);
  const int64_t size = pixels * layout.step;
  if (line != buffer) {
    if (size % kLanes == 0) return line;
    std::memcpy(buffer, line, size_t(size) * sizeof(T));
  }
  for (int64_t e = size; e < (size + kLanes - 1) / kLanes * kLanes; ++e) buffer[e] = T(0);
  return buffer;
}

template <typename Out, typename T>
void fill_row(T value, int64_t size, Out* out) {
  for (int64_t e = 0; e < size; ++e) narrow(value, out + e);
}

template <typename Image, typename T, int kSets>
void edge_pixel(const LineMap<T, kSets>& map, int64_t j, const Image* row, int64_t pixel_stride,
                T* const (&out)[kSets]) {
  const int32_t lower = map.lower[j], upper = map.upper[j];
  for (int64_t c = 0; c < map.step; ++c) {
    const T low = lower == kOutside ? T(0) : T(widen(row[lower * pixel_stride + c]));
    const T high = upper == kOutside ? T(0) : T(widen(row[upper * pixel_stride + c]));
    for (int s = 0; s < kSets; ++s) {
      out[s][j * map.step + c] = map.sets[s].lower[j] * low + map.sets[s].upper[j] * high;
    }
  }
}

RACNN_INLINE void prefetch(const void* from, int64_t bytes) {
  const char* line = static_cast<const char*>(from);
  for (int64_t offset = 0; offset < bytes; offset += kCacheLine) __builtin_prefetch(line + offset);
}

// All weight sets applied to one row of the image; `row` is the row's pixel 0.
template <typename Image, typename T, int kSets>
void make_lines(const LineMap<T, kSets>& map, const Image* row, int64_t pixel_stride,
                T* const (&out)[kSets]) {
  if (map.end > map.begin) {
    const T* line =
        line_of(row + map.first_pixel * pixel_stride, pixel_stride, 1, map.span, map.step, map.buffer);
    const T* weights[kSets];
    T* inner[kSets];
    for (int s = 0; s < kSets; ++s) {
      weights[s] = map.sets[s].band;
      inner[s] = out[s] + map.begin * map.step;
    }
    contract<kSets>(map.band, line, weights, inner);
  }
  for (int64_t j = 0; j < map.begin; ++j) edge_pixel(map, j, row, pixel_stride, out);
  for (int64_t j = map.end; j < map.pixels; ++j) edge_pixel(map, j, row, pixel_stride, out);
}

// The affine map of the pixels, on a finished line: scale * line + shift * (sum of the weights).
template <typename T, int kSets>
void normalise_lines(const LineMap<T, kSets>& map, const ChannelAffine& affine, int64_t channel,
                     T* const (&out)[kSets]) {
  for (int s = 0; s < kSets; ++s) {
    const WeightSet<T>& set = map.sets[s];
    for (int64_t c = 0; c < map.step; ++c) {
      const T scale = T(affine.scale[channel + c]), shift = T(affine.shift[channel + c]);
      T* line = out[s] + c;
      for (int64_t j = 0; j < map.pixels; ++j) {
        line[j * map.step] = scale * line[j * map.step] + shift * (set.lower[j] + set.upper[j]);
      }
    }
  }
}

// The lines of the two image rows that the current output row reads. Rows advance, so each is made once.
template <typename Image, typename T, int kSets>
class RollingLines {
 public:
  RollingLines(Arena& arena, const LineMap<T, kSets>& map, const Strides& images, ChannelAffine affine)
      : map_(map), row_stride_(images.y), pixel_stride_(images.x), affine_(affine) {
    for (auto& slot : slots_) {
      for (T*& line : slot.lines) line = zero_line(arena);
    }
    zeros_ = zero_line(arena);
  }

  void start_plane(const Image* plane, int64_t channel) {
    plane_ = plane;
    channel_ = channel;
    for (auto& slot : slots_) slot.row = kOutside;
  }

  // Says that rows up to `y` of `plane` will be read before long. Of those that were not announced yet it
  // fetches the last two: an output row reads no more. Of far-apart pixels (near_pixels.h) none: most of what
  // lies between two is not read.
  void announce(const Image* plane, int32_t y) {
    if (y == kOutside || pixel_stride_ * int64_t(sizeof(Image)) > kCacheLine * map_.step) return;
    if (plane != announced_plane_) {
      announced_plane_ = plane;
      announced_ = kOutside;
    }
    for (int32_t row = y - 1 > announced_ ? y - 1 : announced_ + 1; row <= y; ++row) {
      prefetch(plane + row * row_stride_ + map_.first_pixel * pixel_stride_,
               map_.span * pixel_stride_ * int64_t(sizeof(Image)));
    }
    announced_ = y > announced_ ? y : announced_;
  }

  struct Rows {
    const T* lower[kSets];
    const T* upper[kSets];
  };

  Rows fetch(int32_t lower, int32_t upper) {
    Rows rows;
    const int lower_slot = slot_for(lower, upper), upper_slot = slot_for(upper, lower);
    for (int s = 0; s < kSets; ++s) {
      rows.lower[s] = lower == kOutside ? zeros_ : slots_[lower_slot].lines[s];
      rows.upper[s] = upper == kOutside ? zeros_ : slots_[upper_slot].lines[s];
    }
    return rows;
  }

 private:
  struct Slot {
    int32_t row = kOutside;
    T* lines[kSets];
  };

  // The slot that holds image row `y`, filled if need be, without giving up row `other`.
  int slot_for(int32_t y, int32_t other) {
    if (y == kOutside || slots_[0].row == y) return 0;
    if (slots_[1].row == y) return 1;
    const int index = slots_[0].row == other ? 1 : 0;
    Slot& slot = slots_[index];
    slot.row = y;
    make_lines(map_, plane_ + y * row_stride_, pixel_stride_, slot.lines);
    if (affine_.scale != nullptr) normalise_lines(map_, affine_, channel_, slot.lines);
    return index;
  }

  // Whole vectors are read: what lies behind a line is and stays zero.
  T* zero_line(Arena& arena) const {
    T* line = arena.take<T>(map_.size() + kLanes);
    for (int64_t e = 0; e < map_.size() + kLanes; ++e) line[e] = T(0);
    return line;
  }

  const LineMap<T, kSets>& map_;
  int64_t row_stride_, pixel_stride_;
  ChannelAffine affine_;
  const Image* plane_ = nullptr;
  int64_t channel_ = 0;
  const Image* announced_plane_ = nullptr;
  int32_t announced_ = kOutside;
  Slot slots_[2];
  T* zeros_;
};

}  // namespace racnn::cpu::RACNN_ISA
