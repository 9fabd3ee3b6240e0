// SPDX-License-Identifier: BSD-3-Clause
//
// Small crops by groups of channels (channel_cells.h).
#pragma once

#include <limits>

#include "channel_cells.h"

namespace racnn::cpu::RACNN_ISA {

// An output row as cells, each plus `offset`, if there is any.
template <typename T, typename Cells>
RACNN_NOINLINE void contract_row_of_cells(const AxisRuns<T>& axis, const Cells& row, const T* offset, T* to) {
  const AxisRuns<T> columns = axis;  // copies that no store can change: they stay in registers
  const Cells cells = row;
  for (int32_t j = 0; j < columns.out; ++j, to += kLanes) {
    const Run run = columns.runs[j];
    Cell<T> sum = weighted_sum(columns.weights[j], run.count,
                               [&](int32_t k) RACNN_INLINED { return cells(0, run.first + k); });
    if (offset != nullptr) sum.add(T(1), Cell<T>::load(offset));
    sum.store(to);
  }
}

template <typename Image, typename Out, typename Taps>
class ChannelForward {
 public:
  using T = Accumulate<Image>;

  ChannelForward(Arena& arena, const ForwardProblem<Image, Out, Taps>& p, const Turned& turned)
      : p_(p),
        map_(arena, p, turned),
        together_(rows_together(p.shape, p.out_strides)),
        cells_(take_cells<T>(arena, int64_t(together_) * p.shape.out_width)),
        offset_(p.affine.offset == nullptr ? nullptr : arena.take<T>(kLanes)) {}

  // Channels [first, first + channels) of an image.
  void turn(const Image* image, int64_t first, int64_t channels) {
    map_.turn(image, first, channels);
    for (int64_t c = 0; offset_ != nullptr && c < kLanes; ++c) {
      offset_[c] = T(p_.affine.offset[first + lesser(c, channels - 1)]);
    }
  }

  // These of crop n.
  void crop(const CropRuns<T>& runs, int64_t n) {
    const CropShape& s = p_.shape;
    const Range columns = runs.columns.range();
    Out* const planes = p_.out + crop_offset(p_.out_strides, n, s.windows) + map_.first() * p_.out_strides.c;
    for (int32_t begin = 0; begin < s.out_height; begin += together_) {
      const int32_t end = lesser(begin + together_, s.out_height);
      for (int32_t i = begin; i < end; ++i) {
        fetch_to_write(planes, i);
        make_row(runs, columns, i, cells_ + int64_t(i - begin) * s.out_width * kLanes);
      }
      write(planes + begin * p_.out_strides.y, int64_t(end - begin) * s.out_width);
    }
  }

 private:
  // Rows that are turned back at a time: they stay in the first level of the cache. One if others lie
  // between.
  static int32_t rows_together(const CropShape& s, const Strides& crops) {
    constexpr int64_t kNumbersTogether = 4096;
    const int64_t rows =
        crops.y == s.out_width ? 1 + kNumbersTogether / (kLanes * greater(s.out_width, 1)) : 1;
    return int32_t(lesser<int64_t>(s.out_height, rows));
  }

  void make_row(const CropRuns<T>& runs, const Range& columns, int32_t i, T* to) {
    if (!runs.finite) return fill_row(std::numeric_limits<T>::quiet_NaN(), p_.shape.out_width * kLanes, to);
    if (runs.rows.runs[i].count == 0) {
      for (int64_t e = 0; e < p_.shape.out_width * kLanes; ++e) {
        to[e] = offset_ == nullptr ? T(0) : offset_[e % kLanes];
      }
      return;
    }
    map_.template with_cells<1>(runs, i, columns, [&](const auto& cells) {
      contract_row_of_cells(runs.columns, cells, offset_, to);
    });
  }

  // The first pixels of `cells_`, into planes or wherever else.
  void write(Out* to, int64_t pixels) const {
    const Strides& s = p_.out_strides;
    const T* cell = cells_;
    if (s.x == 1) return turn_out(cell, pixels, to, s.c, map_.channels());
    for (int64_t e = 0; e < pixels; ++e, to += s.x, cell += kLanes) {
      if (s.c == 1) {
        store_line(to, cell, map_.channels());
      } else {
        for (int64_t c = 0; c < map_.channels(); ++c) narrow(cell[c], to + c * s.c);
      }
    }
  }

  // While output row i is made, a part of the crop's planes, where they lie one behind the other: stores
  // would wait for their lines, all at once.
  RACNN_INLINE void fetch_to_write(const Out* planes, int32_t i) const {
    const CropShape& s = p_.shape;
    if (together_ < s.out_height || p_.out_strides.c != int64_t(s.out_height) * s.out_width) return;
    const int64_t bytes = map_.channels() * p_.out_strides.c * int64_t(sizeof(Out)),
                  part = bytes / s.out_height;
    const char* const to = reinterpret_cast<const char*>(planes);
    for (int64_t at = i * part; at < (i + 1) * part; at += kCacheLine) __builtin_prefetch(to + at, 1, 2);
  }

  const ForwardProblem<Image, Out, Taps>& p_;
  MapCells<Image, T> map_;
  int32_t together_;
  T* cells_;
  T* offset_;
};

template <typename Image, typename Out, typename Taps>
void forward_of_images(const ForwardProblem<Image, Out, Taps>& p, Arena& arena, const Units& units,
                       int64_t begin, int64_t end) {
  const int64_t b = begin / units.per_item();
  const auto image = runs_of_image<false>(arena, p.taps, p.shape, b);
  ChannelForward<Image, Out, Taps> crops(arena, p, image.turned);
  each_window(
      units, begin, end,
      [&](int64_t first, int64_t channels) { crops.turn(p.images + b * p.image_strides.b, first, channels); },
      [&](int64_t k) { crops.crop(image.crops[k], image.numbers[k]); });
}

template <typename Image, typename Out, typename Taps, typename T>
void forward_by_channels(const ForwardProblem<Image, Out, Taps>& p, const CropRuns<T>& runs, Arena& arena,
                         const Units& units, int64_t begin, int64_t end) {
  const int64_t n = begin / units.per_item();
  ChannelForward<Image, Out, Taps> crops(arena, p, turned_for(arena, &runs, 1, p.shape));
  for (; begin < end; ++begin) {
    each_group(units.unit(begin), [&](int64_t first, int64_t channels) {
      crops.turn(p.images + n / p.shape.windows * p.image_strides.b, first, channels);
      crops.crop(runs, n);
    });
  }
}

}  // namespace racnn::cpu::RACNN_ISA
