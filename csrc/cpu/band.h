// SPDX-License-Identifier: BSD-3-Clause
//
// The horizontal primitive, a banded contraction of a line of pixels:
//
//     out[e] = sum over t < taps of weight[t][e] * line[number[e] + t * step]
//
// The forward uses it with two taps or more, its transpose (the image gradient) too, the window gradient with
// several weight sets. A line holds `step` interleaved numbers a pixel: 1 in a plane, C in a channels_last
// image. Neighbouring outputs read neighbouring numbers, so a block of outputs is a permutation of a
// register, or of two, where others gather. A block has as many outputs as it reaches; it is stored as a
// whole register, whose end the next block overwrites. Two rows of the image that need no zeros beside them
// are no line first: what a block reads of them is blended as it is read.
#pragma once

#include "arena.h"
#include "convert.h"

namespace racnn::cpu::RACNN_ISA {

// Wider pixels are contracted pixel by pixel, vectorised over their channels.
constexpr int64_t kWidePixel = 16;

// What permutes registers takes an Index, the place of each lane's number (index_of_lane):
//
//     add(index, n)      n numbers further
//     pick(from, index)  the numbers of a register, or of two, at `index`
#if defined(__AVX2__)
#define RACNN_PERMUTES

// One behind the other.
struct TwoRegisters {
  Register<float> low, high;
};

RACNN_INLINE TwoRegisters both_of(const Register<float>& low, const Register<float>& high) {
  return {low, high};
}
#endif

#if defined(__AVX512F__)
using Index = __m512i;

RACNN_INLINE Index load_index(const int32_t* from) { return _mm512_loadu_si512(from); }
RACNN_INLINE Index add(Index a, int32_t b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }

RACNN_INLINE Register<float> pick(const Register<float>& from, Index index) {
  return Register<float>(_mm512_permutexvar_ps(index, __m512(from)));
}

RACNN_INLINE Register<float> pick(const TwoRegisters& from, Index index) {
  return Register<float>(_mm512_permutex2var_ps(__m512(from.low), index, __m512(from.high)));
}
#elif defined(__AVX2__)
using Index = __m256i;

RACNN_INLINE Index load_index(const int32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
RACNN_INLINE Index add(Index a, int32_t b) { return _mm256_add_epi32(a, _mm256_set1_epi32(b)); }

RACNN_INLINE Register<float> pick(const Register<float>& from, Index index) {
  return Register<float>(_mm256_permutevar8x32_ps(__m256(from), index));
}

// Bit 3 of an index says which register, the permutation looks at bits 0 to 2: shift it to the sign.
RACNN_INLINE Register<float> pick(const TwoRegisters& from, Index index) {
  const __m256 in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return Register<float>(_mm256_blendv_ps(_mm256_permutevar8x32_ps(__m256(from.low), index),
                                          _mm256_permutevar8x32_ps(__m256(from.high), index), in_high));
}
#elif defined(__AARCH64EL__)
#define RACNN_PERMUTES
using Index = uint8x16_t;  // of each byte
using TwoRegisters = uint8x16x2_t;

RACNN_INLINE TwoRegisters both_of(const Register<float>& low, const Register<float>& high) {
  return {{vreinterpretq_u8_f32(float32x4_t(low)), vreinterpretq_u8_f32(float32x4_t(high))}};
}
RACNN_INLINE Index load_index(const int32_t* from) { return vreinterpretq_u8_s32(vld1q_s32(from)); }
RACNN_INLINE Index add(Index a, int32_t b) { return vaddq_u8(a, vdupq_n_u8(uint8_t(4 * b))); }

RACNN_INLINE Register<float> pick(const Register<float>& from, Index index) {
  const uint8x16_t bytes = vreinterpretq_u8_f32(float32x4_t(from));
  return Register<float>(vreinterpretq_f32_u8(vqtbl1q_u8(bytes, index)));
}

RACNN_INLINE Register<float> pick(const TwoRegisters& from, Index index) {
  return Register<float>(vreinterpretq_f32_u8(vqtbl2q_u8(from, index)));
}
#endif

RACNN_INLINE int32_t index_of_lane(int64_t n) {
#if defined(__AARCH64EL__)
  return int32_t(0x04040404 * n + 0x03020100);
#else
  return int32_t(n);
#endif
}

// Whether registers of T are permuted; else numbers are fetched one by one, from any distance.
#if defined(RACNN_PERMUTES)
template <typename T>
constexpr bool kPermutes = std::is_same_v<T, float>;
#else
template <typename T>
constexpr bool kPermutes = false;
#endif

// What a band reads.
template <typename T>
struct Line {
  const T* from;

  RACNN_INLINE T number(int64_t e) const { return from[e]; }
  RACNN_INLINE Register<T> load(int64_t e) const { return load_register(from + e); }
};

// A line that is made as it is read, with the bits that blend_registers gives it. The taps of a block share a
// register only where loading it takes this long.
template <typename From, typename T>
struct BlendedRows {
  static constexpr int64_t kLoad = 3;

  const From* upper;
  const From* lower;
  T weights[2];

  RACNN_INLINE Register<T> load(int64_t e) const {
    Register<T> sum{};
    sum += weights[0] * load_register_as<T>(upper + e);
    sum += weights[1] * load_register_as<T>(lower + e);
    return sum;
  }
};

template <typename T>
struct Band {
  static constexpr int kLanes = kRegisterLanes<T>;

  int64_t size;  // outputs, in numbers
  int64_t step;  // numbers a pixel
  int64_t taps;
  int64_t blocks;
  int64_t inside;  // the first so many blocks do not reach beyond the last output
  int registers;   // that a block reads for all its taps, 1 or 2; 0: one for each
  int32_t* begin;  // [blocks]: first output
  int32_t* count;  // [blocks]: outputs
  int32_t* base;   // [blocks]: the lowest number that it reads
  int32_t* index;  // [blocks, kLanes]: what each lane reads, relative to base; an Index if permuted

  // Numbers behind the first output that are overwritten when all blocks are stored whole.
  int64_t covered() const { return blocks > 0 ? begin[blocks - 1] + kLanes : 0; }
};

// Calls use(first output, outputs) for blocks of numbers that lie within `reach` of each other.
template <typename Number, typename Use>
void each_block(int64_t size, int64_t lanes, int64_t reach, const Number& number, const Use& use) {
  for (int64_t begin = 0; begin < size;) {
    int64_t low = number(begin), high = low, end = begin + 1;
    for (; end < size && end < begin + lanes; ++end) {
      const int64_t next = number(end);
      const int64_t lower = lesser(low, next), higher = greater(high, next);
      if (higher - lower > reach) break;
      low = lower;
      high = higher;
    }
    use(begin, end - begin, low);
    begin = end;
  }
}

// `first`: of each output pixel, the first pixel of the line that it reads. `load`: what a register of it
// takes, in instructions beside those of a Line.
template <typename T>
Band<T> make_band(Arena& arena, const int32_t* first, int64_t pixels, int64_t step, int64_t taps,
                  int64_t load = 0) {
  constexpr int64_t kLanes = Band<T>::kLanes;
  Band<T> band{pixels * step, step, taps, 0, 0, 0, nullptr, nullptr, nullptr, nullptr};
  int32_t* numbers = arena.take<int32_t>(band.size);
  for (int64_t j = 0; j < pixels; ++j) {
    for (int64_t c = 0; c < step; ++c) numbers[j * step + c] = int32_t(first[j] * step + c);
  }
  const auto number = [&](int64_t e) { return int64_t(numbers[e]); };
  const auto blocks_of = [&](int64_t reach) {
    int64_t blocks = 0;
    each_block(band.size, kLanes, reach, number, [&](int64_t, int64_t, int64_t) { ++blocks; });
    return blocks;
  };
  int64_t reach = kPermutes<T> ? kLanes - 1 : int64_t(INT32_MAX) * 2;
  band.blocks = blocks_of(reach);
  int64_t least = band.blocks * (taps * (3 + load) + 3);  // instructions
  for (int registers = load > 0 ? 1 : 2; kPermutes<T> && registers <= 2; ++registers) {
    const int64_t reach_of_all = registers * kLanes - 1 - (taps - 1) * step;
    if (reach_of_all < 0) continue;
    const int64_t blocks = blocks_of(reach_of_all);
    const int64_t pick = registers == 1 ? 2 : kRegisterBytes == 32 ? 4 : 1;
    const int64_t count = blocks * (taps * (pick + 1) + registers * load + 4);
    if (count >= least) continue;
    least = count;
    reach = reach_of_all;
    band.registers = registers;
    band.blocks = blocks;
  }
  band.begin = arena.take<int32_t>(band.blocks);
  band.count = arena.take<int32_t>(band.blocks);
  band.base = arena.take<int32_t>(band.blocks);
  band.index = arena.take<int32_t>(band.blocks * kLanes);
  int64_t b = 0;
  each_block(band.size, kLanes, reach, number, [&](int64_t begin, int64_t count, int64_t base) {
    band.begin[b] = int32_t(begin);
    band.count[b] = int32_t(count);
    band.base[b] = int32_t(base);
    if (band.inside == b && begin + kLanes <= band.size) ++band.inside;
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t lane = i < count ? numbers[begin + i] - base : 0;
      band.index[b * kLanes + i] = kPermutes<T> ? index_of_lane(lane) : int32_t(lane);
    }
    ++b;
  });
  return band;
}

// A table with one number for each lane of each of `rows` registers a block: value(row, output pixel), and 0
// for lanes without an output.
template <typename T, typename Value>
T* make_lanes(Arena& arena, const Band<T>& band, int64_t rows, const Value& value) {
  constexpr int64_t kLanes = Band<T>::kLanes;
  T* table = arena.take<T>(band.blocks * rows * kLanes);
  for (int64_t b = 0; b < band.blocks; ++b) {
    for (int64_t row = 0; row < rows; ++row) {
      T* lanes = table + (b * rows + row) * kLanes;
      int64_t pixel = band.begin[b] / band.step, channel = band.begin[b] % band.step;
      for (int64_t i = 0; i < kLanes; ++i) {
        lanes[i] = i < band.count[b] ? value(row, pixel) : T(0);
        if (++channel < band.step) continue;
        channel = 0;
        ++pixel;
      }
    }
  }
  return table;
}

// Outputs of a block that reads `line` from number `base` on, by its tables of each weight set, `taps`
// registers. kTaps = 0: as many as the band says.
template <typename Kind, int kSets, typename Source, typename T>
RACNN_INLINE void contract_block(const Band<T>& band, const Source& line, int64_t base, const int32_t* index,
                                 const T* const (&weights)[kSets], Register<T> (&out)[kSets]) {
  constexpr int64_t kLanes = Band<T>::kLanes;
  const int64_t taps = Kind::taps > 0 ? Kind::taps : band.taps;
  const auto add_up = [&](int64_t t, const Register<T>& value) RACNN_INLINED {
    RACNN_UNROLL
    for (int s = 0; s < kSets; ++s) {
      const Register<T> weight = load_register(weights[s] + t * kLanes);
      out[s] += weight * value;
    }
  };
  RACNN_UNROLL
  for (Register<T>& sum : out) sum = Register<T>{};  // in all kernels: who is added to what is the last bit
#if defined(RACNN_PERMUTES)
  if constexpr (kPermutes<T>) {
    Index at = load_index(index);
    const auto pick_all = [&](const auto& numbers) RACNN_INLINED {
      RACNN_UNROLL
      for (int64_t t = 0; t < taps; ++t) {
        add_up(t, pick(numbers, at));
        at = add(at, int32_t(band.step));
      }
    };
    if constexpr (Kind::registers == 2) {
      pick_all(both_of(line.load(base), line.load(base + kLanes)));
    } else if constexpr (Kind::registers == 1) {
      pick_all(line.load(base));
    } else {
      RACNN_UNROLL
      for (int64_t t = 0; t < taps; ++t) add_up(t, pick(line.load(base + t * band.step), at));
    }
  }
#endif
  if constexpr (!kPermutes<T>) {
    for (int64_t t = 0; t < taps; ++t) {
      T lanes[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) lanes[i] = line.number(base + index[i] + t * band.step);
      add_up(t, load_register(lanes));
    }
  }
}

template <int kTaps, int kRegisters>
struct BandKind {
  static constexpr int taps = kTaps;
  static constexpr int registers = kRegisters;
};

// Outputs of so many taps may read BlendedRows.
constexpr int kBlendedTaps = 2;
template <typename Kind, typename T>
constexpr bool kMayBlend = kPermutes<T> && Kind::taps == kBlendedTaps;

// use(BandKind) with what contract_block wants as constants: the usual numbers of taps.
template <typename T, typename Use>
RACNN_INLINE void with_kind(const Band<T>& band, const Use& use) {
  if (band.registers == 2) return band.taps == 2 ? use(BandKind<2, 2>{}) : use(BandKind<0, 2>{});
  if (band.registers == 1) return use(BandKind<kBlendedTaps, 1>{});
  if (band.taps == 2) return use(BandKind<2, 0>{});
  if (band.taps == 3) return use(BandKind<3, 0>{});
  use(BandKind<0, 0>{});
}

// Outputs of one line by a band, each plus `offset`, if there is any. There is room for `room` numbers.
template <typename Kind, typename Source, typename T, typename Out>
RACNN_INLINE void contract_row(const Band<T>& band, const Source& line, const T* weights, const T* offset,
                               Out* out, int64_t room) {
  constexpr int64_t kLanes = Band<T>::kLanes;
  const int64_t taps = Kind::taps > 0 ? Kind::taps : band.taps;
  const int32_t* index = band.index;
  const auto next = [&](int64_t b) RACNN_INLINED {
    Register<T> sums[1];
    contract_block<Kind>(band, line, band.base[b], index, {weights}, sums);
    if (offset != nullptr) sums[0] += load_register(offset + band.begin[b]);
    index += kLanes;
    weights += taps * kLanes;
    return sums[0];
  };
  int64_t b = 0;
  for (; b < band.inside; ++b) {
    const Register<T> sums = next(b);
    store_register_as<T>(out + band.begin[b], sums);
  }
  for (; b < band.blocks; ++b) {
    const Register<T> sums = next(b);
    store_lanes<T>(out + band.begin[b], sums, room - band.begin[b]);
  }
}

}  // namespace racnn::cpu::RACNN_ISA
