// SPDX-License-Identifier: BSD-3-Clause
//
// Small crops of maps with many channels: their rows are too short for registers, their channels are not. A
// group of channels is turned so that a pixel's numbers lie side by side, a *cell* (cells.h). Both halves of
// a crop are then weighted sums of cells, without permutations, and what they leave is turned back. A small
// map is turned once for all windows of its image; of a large one what a window reads. Entries are added up
// in the order of the other kernels (band.h): the forward of two-entry taps is theirs to the bit.
#pragma once

#include "columns.h"

namespace racnn::cpu::RACNN_ISA {

static_assert(kLanes == kChannelGroup);

// cells[e * kLanes + c] = plane c's number e, for e < n in whole registers, `channels` planes from `from` on;
// 0 for other c < kLanes. Nothing is read from `end` on.
template <typename From, typename T>
RACNN_NOINLINE void turn_in(const From* from, const Strides& s, int64_t channels, int64_t n, const From* end,
                            T* cells) {
  alignas(64) T block[kLanes * kLanes];
  for (int64_t i = channels * kLanes; i < kLanes * kLanes; ++i) block[i] = T(0);
  for (int64_t e = 0; e < n; e += kLanes) {
    T* const to = cells + e * kLanes;
    const bool whole = s.x == 1 && from + (channels - 1) * s.c + e + kLanes <= end;
    if constexpr (std::is_same_v<From, T>) {
      if (whole && channels == kLanes) {
        transpose(from + e, s.c, to, kLanes);
        continue;
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      const From* const line = from + c * s.c + e * s.x;
      T* const lanes = block + c * kLanes;
      if (whole) {
        RACNN_UNROLL
        for (int r = 0; r < kLanes; r += kRegisterLanes<T>) {
          store_register(lanes + r, load_register_as<T>(line + r));
        }
      } else {
        for (int64_t i = 0; i < lesser<int64_t>(n - e, kLanes); ++i) lanes[i] = T(widen(line[i * s.x]));
      }
    }
    transpose(static_cast<const T*>(block), kLanes, to, kLanes);
  }
}

// The other way round. The last block of a plane begins early enough to be whole.
template <typename T, typename To>
RACNN_NOINLINE void turn_out(const T* cells, int64_t n, To* to, int64_t plane_stride, int64_t channels) {
  alignas(64) T block[kLanes * kLanes];
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    const int64_t e = n < kLanes ? 0 : lesser(begin, n - kLanes);
    if constexpr (std::is_same_v<To, T>) {
      if (n >= kLanes && channels == kLanes) {
        transpose(cells + e * kLanes, kLanes, to + e, plane_stride);
        continue;
      }
    }
    transpose(cells + e * kLanes, kLanes, block, kLanes);
    for (int64_t c = 0; c < channels; ++c) {
      store_line(to + c * plane_stride + e, block + c * kLanes, lesser<int64_t>(n, kLanes));
    }
  }
}

constexpr int64_t kPixelRowsAhead = 4;

// The pixels that are turned, of whole rows.
struct Turned : Box {
  const bool* rows_read = nullptr;  // [rows]: the others are left out; null: all are turned
};

// Of a group of planes, from pixel 0 of the first on; `width` is that of the planes.
template <typename From, typename T>
void turn_box_in(const From* planes, const Rows<From>& rows, int64_t channels, int64_t width,
                 const Turned& box, T* cells) {
  const Strides& s = rows.strides;
  const int64_t columns = box.columns.size(), height = box.rows.size();
  const From* const from = planes + box.rows.begin * s.y + box.columns.begin * s.x;
  if (box.rows_read == nullptr && columns == width && s.y == width * s.x) {
    return turn_in(from, s, channels, height * width, rows.end, cells);
  }
  for (int64_t y = 0; y < height; ++y) {
    if (box.rows_read != nullptr && !box.rows_read[y]) continue;
    const int64_t ahead = y + kPixelRowsAhead;
    for (int64_t c = 0; ahead < height && (box.rows_read == nullptr || box.rows_read[ahead]) && c < channels;
         ++c) {
      RowsAhead<From>{from + ahead * s.y + c * s.c, 1}.fetch(0, 0, columns);
    }
    turn_in(from + y * s.y, s, channels, columns, rows.end, cells + y * columns * kLanes);
  }
}

// For a box that is read: whole rows where they are little longer, since blocks of pixels run on from row to
// row.
inline Turned turned_for(Box box, const CropShape& s) {
  if (2 * box.columns.size() >= s.width) box.columns = {0, s.width};
  return {box};
}

// For some crops: without the rows that none of them reads where these are many.
template <typename T>
Turned turned_for(Arena& arena, const CropRuns<T>* crops, int64_t count, const CropShape& s) {
  Box box{{s.height, 0}, {s.width, 0}};
  for (int64_t k = 0; k < count; ++k) {
    if (crops[k].finite) box.add(crops[k].box());
  }
  Turned turned = turned_for(box, s);
  const int64_t rows = turned.rows.size();
  bool* const read = arena.take<bool>(rows);
  int64_t many = 0;
  for (int64_t y = 0; y < rows; ++y) read[y] = false;
  for (int64_t k = 0; k < count && many < rows; ++k) {
    if (!crops[k].finite) continue;
    crops[k].rows.each([&](int32_t, int32_t y, T) {
      bool& it = read[y - turned.rows.begin];
      many += !it;
      it = true;
    });
  }
  if (4 * many < 3 * rows) turned.rows_read = read;
  return turned;
}

// Cells of so many pixels; whole blocks of them are turned.
template <typename T>
T* take_cells(Arena& arena, int64_t pixels) {
  return arena.take<T>((pixels + kLanes) * kLanes);
}

// The runs of all windows of an image, and the pixels that are turned for them.
template <typename Crop>
struct ImageRuns {
  const Crop* crops;
  const int64_t* numbers;  // of the crops
  int64_t count;
  Turned turned;
};

template <bool kGrad, typename Taps>
auto runs_of_image(Arena& arena, const Taps& taps, const CropShape& s, int64_t b,
                   const ImageIndex& index = {}) {
  using Crop = decltype(crop_runs<kGrad>(arena, taps, s, b));
  const int64_t most = crops_of_image(index, s, b);
  Crop* crops = arena.take<Crop>(most);
  int64_t* numbers = arena.take<int64_t>(most);
  int64_t count = 0;
  each_crop_of_image(index, s, b, [&](int64_t n) {
    numbers[count] = n;
    crops[count++] = crop_runs<kGrad>(arena, taps, s, n);
  });
  return ImageRuns<Crop>{crops, numbers, count, turned_for(arena, crops, count, s)};
}

// Of gradients of crops: channels [first, first + channels) of crop n, all its pixels.
template <typename Grad, typename T>
void turn_crop_in(const Grad* grad_output, const Rows<Grad>& rows, const CropShape& s, int64_t n,
                  int64_t first, int64_t channels, T* cells) {
  const Grad* const planes = grad_output + crop_offset(rows.strides, n, s.windows) + first * rows.strides.c;
  turn_box_in(planes, rows, channels, s.out_width, {{{0, s.out_height}, {0, s.out_width}}}, cells);
}

template <typename T>
constexpr int kCellRegisters = kLanes / kRegisterLanes<T>;

// A cell in registers.
template <typename T>
struct Cell {
  Register<T> part[kCellRegisters<T>] = {};

  static RACNN_INLINE Cell load(const T* from) {
    Cell cell;
    RACNN_UNROLL
    for (int r = 0; r < kCellRegisters<T>; ++r) cell.part[r] = load_register(from + r * kRegisterLanes<T>);
    return cell;
  }

  RACNN_INLINE void store(T* to) const {
    RACNN_UNROLL
    for (int r = 0; r < kCellRegisters<T>; ++r) store_register(to + r * kRegisterLanes<T>, part[r]);
  }

  RACNN_INLINE void add(T weight, const Cell& other) {
    RACNN_UNROLL
    for (int r = 0; r < kCellRegisters<T>; ++r) part[r] += weight * other.part[r];
  }
};

// Sum of weights[k] * cell(k).
template <typename T, typename CellOf>
RACNN_INLINE Cell<T> weighted_sum(const T* weights, int32_t count, const CellOf& cell) {
  Cell<T> sum;
  if (count == 2) {
    sum.add(weights[0], cell(0));
    sum.add(weights[1], cell(1));
    return sum;
  }
  for (int32_t k = 0; k < count; ++k) sum.add(weights[k], cell(k));
  return sum;
}

// Cell x of the pixels that an output row reads, by its weights s: a sum of cells of its kCount rows,
template <typename T, int kCount>
struct RowCells {
  const T* cells;  // of the first row, from pixel `begin` on
  int32_t begin;
  int64_t pitch;
  const T* weights;

  RACNN_INLINE Cell<T> operator()(int s, int64_t x) const {
    Cell<T> sum;
    RACNN_UNROLL
    for (int k = 0; k < kCount; ++k) {
      sum.add(weights[s * kCount + k], Cell<T>::load(cells + k * pitch + (x - begin) * kLanes));
    }
    return sum;
  }
};

// or one of a line made of such sums, which begins with pixel `begin`.
template <typename T>
struct LineCells {
  const T* lines[AxisRuns<T>::kMostSets];
  int32_t begin;

  RACNN_INLINE Cell<T> operator()(int s, int64_t x) const {
    return Cell<T>::load(lines[s] + (x - begin) * kLanes);
  }
};

// What windows read of an image, a group of channels as cells.
template <typename Image, typename T>
class MapCells {
 public:
  template <typename Problem>
  MapCells(Arena& arena, const Problem& p, const Turned& turned)
      : rows_(rows_of(p.images, p.image_strides, p.shape, false, 1)),
        width_(p.shape.width),
        turned_(turned),
        pitch_(turned.columns.size() * kLanes),
        affine_(p.affine),
        cells_(take_cells<T>(arena, turned.size())) {
    for (T*& line : lines_) line = take_cells<T>(arena, turned.columns.size());
    if (affine_.scale == nullptr) return;
    scale_ = take_cells<T>(arena, turned.columns.size());
    shift_ = take_cells<T>(arena, turned.columns.size());
  }

  // Channels [first, first + channels) of the image whose pixel 0 is `image`.
  void turn(const Image* image, int64_t first, int64_t channels) {
    first_ = first;
    channels_ = channels;
    turn_box_in(image + first * rows_.strides.c, rows_, channels, width_, turned_, cells_);
    if (affine_.scale == nullptr) return;
    for (int64_t e = 0; e < pitch_; ++e) {
      const int64_t c = first + lesser<int64_t>(e % kLanes, channels - 1);
      scale_[e] = T(affine_.scale[c]);
      shift_[e] = T(affine_.shift[c]);
    }
  }

  // What was turned last.
  int64_t first() const { return first_; }
  int64_t channels() const { return channels_; }

  // use(RowCells) or use(LineCells) of output row i, of kSets sets: short runs skip pixels, and what is read
  // once needs no line. `columns`: from the first to the last that the crop reads.
  template <int kSets, typename Use>
  RACNN_INLINE void with_cells(const CropRuns<T>& runs, int32_t i, const Range& columns, const Use& use) {
    const Run& run = runs.rows.runs[i];
    const T* const from = cells_ + (run.first - turned_.rows.begin) * pitch_;
    if (run.count <= 2 && runs.columns.longest <= 2 && affine_.scale == nullptr) {
      const T* const weights = runs.rows.weights[i];
      if (run.count == 1) return use(RowCells<T, 1>{from, turned_.columns.begin, pitch_, weights});
      return use(RowCells<T, 2>{from, turned_.columns.begin, pitch_, weights});
    }
    make_lines<kSets>(runs.rows, i, from + (columns.begin - turned_.columns.begin) * kLanes, columns.size());
    use(LineCells<T>{{lines_[0], lines_[1], lines_[2]}, columns.begin});
  }

 private:
  template <int kSets>
  void make_lines(const AxisRuns<T>& axis, int32_t i, const T* from, int64_t pixels) {
    const T* weights[kSets];
    T* lines[kSets];
    LineAffine<T, kSets> affine{scale_, shift_};
    for (int s = 0; s < kSets; ++s) {
      weights[s] = axis.set(i, s);
      lines[s] = lines_[s];
      affine.weights[s] = axis.sums[s][i];
    }
    blend_whole<kSets>(from, pitch_, axis.runs[i].count, weights, lines, pixels * kLanes, affine,
                       RowsAhead<T>{});
  }

  Rows<Image> rows_;
  int64_t width_;
  Turned turned_;
  int64_t pitch_;  // numbers from row to row
  ChannelAffine affine_;
  T* cells_;
  T* lines_[AxisRuns<T>::kMostSets];
  T* scale_ = nullptr;
  T* shift_ = nullptr;
  int64_t first_ = 0, channels_ = 0;
};

// Units of whole images: turn(first channel, channels) before visit(window) of those.
template <typename Turn, typename Visit>
void each_window(const Units& units, int64_t begin, int64_t end, const Turn& turn, const Visit& visit) {
  int64_t turned = -1;
  for (; begin < end; ++begin) {
    const Unit unit = units.unit(begin);
    if (unit.plane_begin != turned) turn(unit.plane_begin, unit.plane_end - unit.plane_begin);
    turned = unit.plane_begin;
    for (int32_t k = unit.row_begin; k < unit.row_end; ++k) visit(k);
  }
}

// The planes of a unit in groups: visit(first channel, channels).
template <typename Visit>
void each_group(const Unit& unit, const Visit& visit) {
  for (int64_t c = unit.plane_begin; c < unit.plane_end; c += kLanes) {
    visit(c, lesser<int64_t>(unit.plane_end - c, kLanes));
  }
}

// Whether one crop goes by groups of channels.
template <typename T>
bool prefers_channels(const CropRuns<T>& runs, const CropShape& s, const Strides& images,
                      const Units& units) {
  const int64_t pixels = turned_for(runs.box(), s).size(), planes = lesser(units.planes_each, units.planes);
  return plane_layout(s.channels, images).step == 1 && pixels <= kMostTurned &&
         channels_pay(pixels, planes, s);
}

}  // namespace racnn::cpu::RACNN_ISA
