// SPDX-License-Identifier: BSD-3-Clause
//
// What one run computes, from words such as `forward images=uint8 H=448 windows=224,224,112/10,20,30`.
#pragma once

#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/tap_options.h"
#include "tensor.h"

namespace racnn::cpu {

class Words {
 public:
  Words(int count, char** words) {
    for (int i = 0; i < count; ++i) {
      const std::string word = words[i];
      const size_t equals = word.find('=');
      if (equals == std::string::npos) throw std::invalid_argument("not NAME=VALUE: " + word);
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }

  std::string text(const std::string& name, const std::string& otherwise) {
    known_.insert(name);
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
  }

  int64_t whole(const std::string& name, int64_t otherwise) {
    return std::stoll(text(name, std::to_string(otherwise)));
  }

  void check_all_known() const {
    for (const auto& [name, value] : values_) {
      if (!known_.contains(name)) throw std::invalid_argument("unknown: " + name + "=" + value);
    }
  }

 private:
  std::map<std::string, std::string> values_;
  std::set<std::string> known_;
};

inline std::vector<double> numbers(const std::string& text, char separator) {
  std::vector<double> found;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, separator);) found.push_back(std::stod(part));
  return found;
}

struct Case {
  std::string kernel;         // forward, window_grad, image_grad, boxcar_grad, tap_crop or tap_image_grad
  std::string images, crops;  // dtypes
  CropShape shape;
  std::vector<std::vector<double>> windows;  // crop n has window n, from the first again behind the last
  std::vector<int64_t> index;                // of each crop, out of which of B images; empty: n / K
  Layout layout;                             // of what is read
  Layout result;                             // of what is written: contiguous or channels_last
  TapOptions taps;
  bool affine;
  Energy energy;
  int64_t parts;    // calls of the kernel for one run
  int64_t repeats;  // runs
  bool checked;     // whether results are compared
  bool wrong;       // compared with what other inputs would give, which must be found

  Case(const std::string& kernel_, Words words) : kernel(kernel_) {
    images = words.text("images", "float32");
    crops = words.text("crops", images);
    shape = {words.whole("B", 1),           words.whole("K", 1),           words.whole("C", 3),
             int32_t(words.whole("H", 32)), int32_t(words.whole("W", 32)), int32_t(words.whole("h", 16)),
             int32_t(words.whole("w", 16))};
    std::istringstream each(words.text("windows", "16,16,8"));
    for (std::string window; std::getline(each, window, '/');) windows.push_back(numbers(window, ','));
    for (const std::vector<double>& window : windows) {
      if (window.size() != windows[0].size() || window.size() < 3 || window.size() > 5) {
        throw std::invalid_argument("windows must have 3 to 5 numbers each");
      }
    }
    for (const double image : numbers(words.text("index", ""), ',')) index.push_back(int64_t(image));
    const bool knows_index = kernel == "forward" || kernel == "window_grad" || kernel == "image_grad";
    if (!index.empty() && (!knows_index || shape.windows != 1)) {
      throw std::invalid_argument("index is for forward, window_grad and image_grad, without K");
    }
    layout = parse<Layout>("layout", words.text("layout", "contiguous"),
                           {"contiguous", "channels_last", "transposed", "sliced", "every_second"});
    const bool interleaved = layout == Layout::kChannelsLast;
    result = parse<Layout>("result", words.text("result", interleaved ? "channels_last" : "contiguous"),
                           {"contiguous", "channels_last"});
    affine = words.whole("affine", 0) != 0;
    const bool offset = words.whole("offset", 0) != 0;
    if (offset && !affine) throw std::invalid_argument("offset=1 needs affine=1");
    taps = parse_taps(words.text("boundary", "zeros"), std::stod(words.text("mask", "0")),
                      words.text("interpolation", "bilinear"), words.whole("antialias", 0) != 0, offset);
    energy = parse<Energy>("energy", words.text("energy", "abs"), {"abs", "square"});
    parts = words.whole("parts", 1);
    repeats = words.whole("repeats", 1);
    checked = words.whole("checked", 1) != 0;
    wrong = words.whole("wrong", 0) != 0;
    words.check_all_known();
  }

  // Of the problem: with an index crops are a batch or, of a gradient of images, windows of every image.
  CropShape crop_shape() const { return index.empty() ? shape : with_axes(int64_t(index.size()), 1); }
  CropShape image_grad_shape() const {
    return index.empty() ? shape : with_axes(shape.batch, int64_t(index.size()));
  }
  ImageIndex image_index() const { return {index.empty() ? nullptr : index.data(), shape.batch}; }

  int64_t crop_count() const { return crop_shape().batch * crop_shape().windows; }
  int32_t values() const { return int32_t(windows[0].size()); }
  std::array<int64_t, 5> image_sizes() const {
    return {shape.batch, 1, shape.channels, shape.height, shape.width};
  }
  std::array<int64_t, 5> crop_sizes() const {
    const CropShape s = crop_shape();
    return {s.batch, s.windows, s.channels, s.out_height, s.out_width};
  }

  template <typename T>
  std::vector<T> window_data() const {
    std::vector<T> data;
    for (int64_t n = 0; n < crop_count(); ++n) {
      for (const double value : windows[size_t(n) % windows.size()]) data.push_back(T(value));
    }
    return data;
  }

 private:
  CropShape with_axes(int64_t batch, int64_t windows) const {
    CropShape s = shape;
    s.batch = batch;
    s.windows = windows;
    return s;
  }
};

}  // namespace racnn::cpu
