// SPDX-License-Identifier: BSD-3-Clause
//
// Tensors whose neighbouring pixels lie in different cache lines (transposed, batch innermost): read row by
// row, each line would be fetched again for every number in it. What a call reads of them is first copied, a
// tile at a time, to where a contiguous tensor would have it; the kernels then read the copy.
#pragma once

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "../problems.h"
#include "units.h"

namespace racnn::cpu {

// Calls `work` for parts [begin, end) of [0, items) on several threads, and waits for all. torch's: defined
// in torch/cpu.cpp.
void parallel_for(int64_t items, const std::function<void(int64_t begin, int64_t end)>& work);

// The same, of one part on this thread alone: waking and asking nobody is most of what a small call costs.
template <typename Work>
void for_each_part(int64_t items, const Work& work) {
  if (items == 1) return work(0, 1);
  parallel_for(items, std::cref(work));
}

// Copying costs less a pixel than reading far-apart ones; beyond so many copied for one read it does not pay.
constexpr double kWorthCopying = 4;

// A tensor [b, k, c, y, x] of which only a box is read of each b.
template <typename T>
struct FarPixels {
  const T* data;
  int64_t sizes[5];
  int64_t strides[5];
  std::vector<Box> boxes;  // [b]
};

template <typename T>
bool are_far_apart(const T*, const Strides& s, int64_t channels, int64_t width) {
  const bool interleaved = s.c == 1 && s.x == channels;
  return width > 1 && s.x * int64_t(sizeof(T)) >= kCacheLine && !interleaved;
}

#if defined(__SSE2__)
// a0 b0 a1 b1 ... of the lower or the upper halves of two registers of numbers of kBytes.
template <size_t kBytes, bool kUpper>
__m128i interleave(__m128i a, __m128i b) {
  if constexpr (kBytes == 1) return kUpper ? _mm_unpackhi_epi8(a, b) : _mm_unpacklo_epi8(a, b);
  if constexpr (kBytes == 2) return kUpper ? _mm_unpackhi_epi16(a, b) : _mm_unpacklo_epi16(a, b);
  if constexpr (kBytes == 4) return kUpper ? _mm_unpackhi_epi32(a, b) : _mm_unpacklo_epi32(a, b);
  return kUpper ? _mm_unpackhi_epi64(a, b) : _mm_unpacklo_epi64(a, b);
}

// to[i][x] = from[x * x_stride + i] for as many x and i as a register holds numbers.
template <typename T>
void transpose(const T* from, int64_t x_stride, T* to, int64_t to_stride) {
  constexpr int kWidth = sizeof(__m128i) / sizeof(T);
  __m128i rows[kWidth], next[kWidth];
  for (int x = 0; x < kWidth; ++x) {
    rows[x] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + x * x_stride));
  }
  for (int round = 1; round < kWidth; round *= 2) {
    for (int i = 0; i < kWidth / 2; ++i) {
      next[2 * i] = interleave<sizeof(T), false>(rows[i], rows[i + kWidth / 2]);
      next[2 * i + 1] = interleave<sizeof(T), true>(rows[i], rows[i + kWidth / 2]);
    }
    std::memcpy(rows, next, sizeof(rows));
  }
  for (int i = 0; i < kWidth; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), rows[i]);
}
#else
template <typename T>
void transpose(const T* from, int64_t x_stride, T* to, int64_t to_stride) {
  constexpr int kWidth = 16 / sizeof(T);
  for (int x = 0; x < kWidth; ++x) {
    for (int i = 0; i < kWidth; ++i) to[i * to_stride + x] = from[x * x_stride + i];
  }
}
#endif

// One tile: x_count steps of x, fast_count of the axis along which numbers share cache lines. Each line of
// either side is touched once, also where a power of two between them lets few into the cache together.
template <typename T>
void copy_tile(const T* from, int64_t x_stride, int64_t fast_stride, int64_t x_count, int64_t fast_count,
               T* to, int64_t to_stride) {
  constexpr int64_t kSide = kCacheLine / int64_t(sizeof(T)), kWidth = 16 / int64_t(sizeof(T));
  T tile[kSide][kSide];
  for (int64_t x = 0; x < x_count; ++x) __builtin_prefetch(from + (x + kSide) * x_stride);
  if (x_count == kSide && fast_count == kSide && fast_stride == 1) {
    for (int64_t x = 0; x < kSide; x += kWidth) {
      for (int64_t i = 0; i < kSide; i += kWidth) {
        transpose(from + x * x_stride + i, x_stride, &tile[i][x], kSide);
      }
    }
    for (int64_t i = 0; i < kSide; ++i) std::memcpy(to + i * to_stride, tile[i], sizeof(tile[i]));
    return;
  }
  for (int64_t x = 0; x < x_count; ++x) {
    for (int64_t i = 0; i < fast_count; ++i) tile[i][x] = from[x * x_stride + i * fast_stride];
  }
  for (int64_t i = 0; i < fast_count; ++i) {
    std::memcpy(to + i * to_stride, tile[i], size_t(x_count) * sizeof(T));
  }
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// The copy as a whole; of its memory only what is read is ever touched. Nothing if there is not enough.
template <typename T>
class NearCopy {
 public:
  explicit NearCopy(FarPixels<T> far) : far_(std::move(far)) {
    int64_t count = int64_t(sizeof(T));
    for (int axis = 4; axis >= 0; --axis) {
      if (far_.strides[axis] == 0) far_.sizes[axis] = std::min<int64_t>(far_.sizes[axis], 1);
      strides_[axis] = far_.sizes[axis] > 1 ? count / int64_t(sizeof(T)) : 0;
      if (__builtin_mul_overflow(count, far_.sizes[axis], &count)) return;
    }
    memory_.reset(static_cast<T*>(std::malloc(size_t(count))));
    if (memory_ != nullptr) copy();
  }

  const T* data() const { return memory_.get(); }
  Strides strides() const { return {strides_[0], strides_[1], strides_[2], strides_[3], 1}; }

 private:
  static constexpr int64_t kSide = kCacheLine / int64_t(sizeof(T));

  void copy() {
    for (int axis = 0; axis < 4; ++axis) {
      const bool shorter = far_.strides[axis] < far_.strides[fast_] || far_.sizes[fast_] == 1;
      if (far_.sizes[axis] > 1 && shorter) fast_ = axis;
    }
    int64_t items = 1;
    for (int axis = 0; axis < 4; ++axis) items *= steps(axis);
    for_each_part(items, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) copy_item(item);
    });
  }

  int64_t steps(int axis) const {
    return axis == fast_ ? (far_.sizes[axis] + kSide - 1) / kSide : far_.sizes[axis];
  }

  // A tile along the fast axis, the whole row of it.
  void copy_item(int64_t item) {
    int64_t begin[4], end[4];
    for (int axis = 3; axis >= 0; --axis) {
      const int64_t step = axis == fast_ ? kSide : 1, index = item % steps(axis) * step;
      begin[axis] = index;
      end[axis] = std::min(index + step, far_.sizes[axis]);
      item /= steps(axis);
    }
    Box box;
    for (int64_t b = begin[0]; b < end[0]; ++b) box.add(far_.boxes[size_t(b)]);
    if (far_.strides[3] == 0) box.rows = {0, box.rows.size() > 0};  // one row for all
    begin[3] = std::max<int64_t>(begin[3], box.rows.begin);
    end[3] = std::min<int64_t>(end[3], box.rows.end);
    if (begin[3] >= end[3]) return;
    const T* from = far_.data;
    T* to = memory_.get();
    for (int axis = 0; axis < 4; ++axis) {
      from += begin[axis] * far_.strides[axis];
      to += begin[axis] * strides_[axis];
    }
    const int64_t fast_stride = far_.strides[fast_], fast_count = end[fast_] - begin[fast_];
    for (int64_t x = box.columns.begin; x < box.columns.end; x += kSide) {
      const int64_t x_count = std::min(kSide, box.columns.end - x);
      copy_tile(from + x * far_.strides[4], far_.strides[4], fast_stride, x_count, fast_count, to + x,
                strides_[fast_]);
    }
  }

  FarPixels<T> far_;
  int64_t strides_[5];
  int fast_ = 3;
  std::unique_ptr<T, Free> memory_;
};

// What crop n reads along an axis, from the window or from its table.
template <typename T>
Range range_of(const Axis<T>& axis) {
  const int32_t first = lower_pixel(axis, 0), last = lower_pixel(axis, axis.out - 1);
  return {std::max(first, 0), std::min(last + 2, axis.size)};
}

template <typename T>
Range range_of(const TableAxis<T>& axis) {
  const auto [first, last] = std::minmax_element(axis.pixels, axis.pixels + axis.out);
  return {std::max(*first, 0), int32_t(std::clamp<int64_t>(int64_t(*last) + 2, 0, axis.size))};
}

// A little more than the runs of a window hold.
template <typename T>
Range range_of(const FilterAxis<T>& f) {
  const Run run = read_by(reach_of(f), run_position(f, 0).pixel, run_position(f, f.axis.out - 1).pixel);
  return {run.first, run.first + run.count};
}

template <typename Taps>
Box box_of(const Taps& taps, const CropShape& s, int64_t n) {
  const auto axes = crop_axes(taps, s, n);
  if (!axes.finite) return {};
  return {range_of(axes.y), range_of(axes.x)};
}

// How many pixels of a box a crop reads: with two entries a tap it may skip most.
template <typename Taps>
double pixels_read(const Taps&, const Box& box, const CropShape& s) {
  return double(std::min(box.rows.size(), 2 * int64_t(s.out_height))) *
         double(std::min(box.columns.size(), 2 * int64_t(s.out_width)));
}

template <typename T>
double pixels_read(const FilterSpec<T>&, const Box& box, const CropShape&) {
  return double(box.size());
}

// Replaces p.images by a copy that lives as long as what is returned, where that pays.
template <typename Problem>
auto bring_images_near(Problem& p) {
  using T = std::remove_const_t<std::remove_pointer_t<decltype(p.images)>>;
  const CropShape& s = p.shape;
  const Strides& in = p.image_strides;
  std::unique_ptr<NearCopy<T>> copy;
  if (!are_far_apart(p.images, in, s.channels, s.width)) return copy;
  FarPixels<T> far{p.images, {s.batch, 1, s.channels, s.height, s.width}, {in.b, 0, in.c, in.y, in.x}, {}};
  far.boxes.resize(size_t(s.batch));
  double reads = 0, copies = 0;  // of expanded tensors more than int64 counts
  for (int64_t n = 0; n < s.batch * s.windows; ++n) {
    const Box box = box_of(p.taps, s, n);
    if (box.size() > 0) far.boxes[in.b == 0 ? 0 : size_t(n / s.windows)].add(box);
    reads += pixels_read(p.taps, box, s);
  }
  for (const Box& box : far.boxes) copies += double(box.size());
  if (copies > kWorthCopying * reads) return copy;
  copy = std::make_unique<NearCopy<T>>(std::move(far));
  if (copy->data() != nullptr) {
    p.images = copy->data();
    p.image_strides = copy->strides();
  }
  return copy;
}

// The same of p.grad_output, which is read whole.
template <typename Problem>
auto bring_gradient_near(Problem& p) {
  using T = std::remove_const_t<std::remove_pointer_t<decltype(p.grad_output)>>;
  const CropShape& s = p.shape;
  const Strides& in = p.grad_strides;
  std::unique_ptr<NearCopy<T>> copy;
  if (!are_far_apart(p.grad_output, in, s.channels, s.out_width)) return copy;
  const std::vector<Box> whole(size_t(s.batch), {{0, s.out_height}, {0, s.out_width}});
  copy =
      std::make_unique<NearCopy<T>>(FarPixels<T>{p.grad_output,
                                                 {s.batch, s.windows, s.channels, s.out_height, s.out_width},
                                                 {in.b, in.k, in.c, in.y, in.x},
                                                 whole});
  if (copy->data() != nullptr) {
    p.grad_output = copy->data();
    p.grad_strides = copy->strides();
  }
  return copy;
}

// Both, where a problem has them.
template <typename Problem>
auto bring_near(Problem& p) {
  if constexpr (requires { p.images; } && requires { p.grad_output; }) {
    auto images = bring_images_near(p);
    return std::pair(std::move(images), bring_gradient_near(p));
  } else if constexpr (requires { p.images; }) {
    return bring_images_near(p);
  } else {
    return bring_gradient_near(p);
  }
}

}  // namespace racnn::cpu
