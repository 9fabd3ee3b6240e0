// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernels on tap tables (TapTables in problems.h) share: with tables what forward mode, higher
// derivatives and vmap are made of. Plain kernels: tables come from memory, one output or pixel a thread.
// Nothing is added atomically: a thread owns each result, and the order is fixed.
#pragma once

#include <algorithm>

#include "../problems.h"
#include "numeric.cuh"

namespace racnn {

constexpr int kTapThreads = 256;
constexpr int kTapChannels = 4;  // of a thread, where the channels are not neighbours in memory

// Elements of crops or images, [N, C, rows, columns], dealt out to threads: neighbouring threads get
// neighbouring addresses, and where those are of one channel a thread takes kTapChannels channels.
struct Deal {
  int64_t channels, groups;
  int32_t rows, columns;
  bool channels_fastest;

  Deal(int64_t channels, int32_t rows, int32_t columns, const Strides& strides)
      : channels(channels),
        rows(rows),
        columns(columns),
        channels_fastest(channels > 1 && strides.c < strides.x) {
    groups = channels_fastest ? channels : (channels + kTapChannels - 1) / kTapChannels;
  }

  int64_t items(int64_t n) const { return n * groups * rows * columns; }

  struct Item {
    int64_t n, channel;
    int32_t count;  // of channels
    int32_t row, column;
  };

  __device__ __forceinline__ Item item(int64_t index) const {
    Item item;
    int64_t group = 0;
    if (channels_fastest) {
      group = index % groups;
      index /= groups;
    }
    item.column = int32_t(index % columns);
    index /= columns;
    item.row = int32_t(index % rows);
    index /= rows;
    if (!channels_fastest) {
      group = index % groups;
      index /= groups;
    }
    item.n = index;
    item.channel = channels_fastest ? group : group * kTapChannels;
    const int64_t left = channels - item.channel;
    item.count = channels_fastest ? 1 : int32_t(left < kTapChannels ? left : kTapChannels);
    return item;
  }
};

template <typename Problem>
struct DealtParams {
  Problem problem;
  Deal deal;
  int64_t items;
};

// The two weights of output j of crop n.
template <typename T>
RACNN_HOST_DEVICE const T* weights_of(const TapTable<T>& table, int64_t n, int32_t out, int32_t j) {
  return table.weights + (n * out + j) * 2;
}

RACNN_HOST_DEVICE bool is_inside(int64_t pixel, int32_t size) { return pixel >= 0 && pixel < size; }

template <typename Params>
cudaError_t launch_items(void (*kernel)(Params), const Params& params, cudaStream_t stream,
                         int64_t max_blocks) {
  const int64_t blocks = (params.items + kTapThreads - 1) / kTapThreads;
  return launch(kernel, dim3(unsigned(std::min(blocks, max_blocks))), dim3(kTapThreads), 0, stream, params);
}

}  // namespace racnn
