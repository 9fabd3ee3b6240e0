// SPDX-License-Identifier: BSD-3-Clause
//
// Tensors as the operators see them: checks, strides, new ones, and the way from dtypes to C++ types. The
// user-facing checks are in Python; those here are the second line and keep a direct call of
// torch.ops.racnn_ops from reading out of bounds.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <vector>

#include "../problems.h"
#include "../sizes.h"

namespace racnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

inline int32_t checked_side(int64_t side) {
  check(side >= 1 && side <= kMaxSide, "heights and widths must lie between 1 and 2**30");
  return int32_t(side);
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

inline bool is_empty(const CropShape& s) { return s.batch == 0 || s.windows == 0 || s.channels == 0; }

inline Strides strides_of(const Tensor& t) {
  const auto s = t.strides();  // at once: an accessor of the stable ABI is a call
  const size_t d = s.size();
  return {s[0], d == 5 ? s[1] : 0, s[d - 3], s[d - 2], s[d - 1]};
}

// The memory format that a result takes over from `images`. The fake kernels decide by the same rule.
inline bool is_channels_last(const Tensor& images) {
  const int64_t channels = images.size(1);
  const auto strides = images.strides();
  return channels > 1 && strides[1] == 1 && strides[3] == channels;
}

// The sizes of a tensor, outermost first.
class Sizes {
 public:
  Sizes(std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) push_back(size);
  }
  explicit Sizes(const Tensor& tensor) {
    for (const int64_t size : tensor.sizes()) push_back(size);
  }

  void push_back(int64_t size) {
    check(count_ < kMost, "too many axes");
    data_[count_++] = size;
  }
  size_t size() const { return count_; }
  const int64_t* data() const { return data_; }
  int64_t operator[](size_t axis) const { return data_[axis]; }
  int64_t& operator[](size_t axis) { return data_[axis]; }

 private:
  static constexpr size_t kMost = 5;
  int64_t data_[kMost];
  size_t count_ = 0;
};

// A new dense tensor on the device of `like`: contiguous or, [..., C, H, W], channels last.
inline Tensor empty_dense(const Sizes& sizes, bool channels_last, ScalarType dtype, const Tensor& like) {
  const size_t d = sizes.size();
  Sizes strides = sizes;
  int64_t step = 1;
  const auto lay_out = [&](size_t axis) {  // the axes innermost first
    strides[axis] = step;
    step = checked_product("a result", {step, sizes[axis] > 1 ? sizes[axis] : 1});
  };
  if (channels_last) {
    for (const size_t axis : {d - 3, d - 1, d - 2}) lay_out(axis);
  }
  for (size_t axis = channels_last ? d - 3 : d; axis-- > 0;) lay_out(axis);
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(int64_t(d), sizes.data(), strides.data(),
                               torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
                               device_type, like.get_device_index(), &handle));
  return Tensor(handle);
}

// Memory for `numbers` numbers of a kernel's call, on the device of `like`: for the few of a small call no
// tensor, where the backend can.
template <typename Backend, typename T>
class Workspace {
 public:
  Workspace(int64_t numbers, ScalarType dtype, const Tensor& like) {
    if (numbers <= Backend::kSmallWorkspace) return;
    tensor_ = empty_dense({numbers}, false, dtype, like);
    data_ = tensor_->template mutable_data_ptr<T>();
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* data() { return data_; }

 private:
  T small_[Backend::kSmallWorkspace + 1];
  std::optional<Tensor> tensor_;
  T* data_ = small_;
};

inline ScalarType accumulate_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename T>
struct Type {};

// Calls f(Type<Image>, Type<Crop>) if the pair has a kernel.
template <typename Backend, typename F>
void with_types(ScalarType image, ScalarType crop, const F& f) {
#define RACNN_CALL_IF(IMAGE, CROP)                                             \
  if (image == ScalarType::IMAGE && crop == ScalarType::CROP) {                \
    return f(Type<typename Backend::IMAGE>{}, Type<typename Backend::CROP>{}); \
  }
  RACNN_FUSED_PAIRS(RACNN_CALL_IF)
#undef RACNN_CALL_IF
  check(false, "no kernel for this pair of image and crop dtypes");
}

// Calls f(Type<float>) or f(Type<double>).
template <typename F>
void with_accumulate_type(ScalarType dtype, const F& f) {
  dtype == ScalarType::Double ? f(Type<double>{}) : f(Type<float>{});
}

}  // namespace racnn
