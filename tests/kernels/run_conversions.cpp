// SPDX-License-Identifier: BSD-3-Clause
//
// Whether the conversions between float and the dtypes of images and crops are right, bit by bit: all numbers
// of a dtype are widened; they, the middle between each and the next, and what lies beside it are narrowed,
// to the nearest number, ties to the even one. By registers and one by one, for the instruction set that the
// compiler takes for granted: NEON on ARM. The exit status is 1 if a number is wrong.
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "../../csrc/cpu/convert.h"
#include "tensor.h"

namespace racnn::cpu::RACNN_ISA {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// IEEE's layout of bits; the exponent of all ones, infinity and NaN, is taken for a number.
template <int kMantissaBits, int kBias>
struct FloatFormat {
  static constexpr int kInfinite = 0x7fff >> kMantissaBits << kMantissaBits, kSign = 0x8000;

  static double number(int bits) {
    const int exponent = bits >> kMantissaBits, mantissa = bits & ((1 << kMantissaBits) - 1);
    const int leading = exponent > 0 ? 1 << kMantissaBits : 0;
    return std::ldexp(mantissa + leading, (exponent > 0 ? exponent : 1) - kBias - kMantissaBits);
  }
};

template <typename T>
struct Format;
template <>
struct Format<Half> : FloatFormat<10, 15> {};
template <>
struct Format<BFloat16> : FloatFormat<7, 127> {};

template <typename T>
T of_bits(int bits) {
  if constexpr (std::is_same_v<T, uint8_t>) {
    return uint8_t(bits);
  } else {
    return {uint16_t(bits)};
  }
}

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}
bool same(uint8_t a, uint8_t b) { return a == b; }
template <typename T>
bool same(T a, T b) {
  const auto nan = [](T value) { return (value.bits & 0x7fff) > Format<T>::kInfinite; };
  return nan(a) ? nan(b) : a.bits == b.bits;
}

// `from` is what was converted.
template <typename From, typename To>
int count_wrong(const char* way, const std::vector<From>& from, const std::vector<To>& actual,
                const std::vector<To>& expected) {
  int wrong = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    if (same(actual[i], expected[i])) continue;
    if (++wrong > 3) continue;
    std::printf("%s: %a is %a, must be %a\n", way, to_double(from[i]), to_double(actual[i]),
                to_double(expected[i]));
  }
  return wrong;
}

template <typename T>
int check_widening(const std::vector<T>& from, const std::vector<float>& expected) {
  const int64_t n = int64_t(from.size());  // a multiple of all registers'
  std::vector<float> to(from.size());
  for (int64_t i = 0; i < n; i += kRegisterLanes<float>) {
    store_register(&to[size_t(i)], load_register_as<float>(&from[size_t(i)]));
  }
  int wrong = count_wrong("load_register_as", from, to, expected);
  widen_line(from.data(), 1, n, to.data());
  return wrong + count_wrong("widen_line", from, to, expected);
}

template <typename T>
int check_narrowing(const std::vector<float>& from, const std::vector<T>& expected) {
  std::vector<T> to(from.size());
  store_line(to.data(), from.data(), int64_t(from.size()));
  int wrong = count_wrong("store_line", from, to, expected);
  for (size_t i = 0; i < from.size(); ++i) narrow(from[i], &to[i]);
  return wrong + count_wrong("narrow", from, to, expected);
}

// Calls use(number, bits of the nearest) for each number and those around the middle between it and the next.
template <typename Use>
void around(double number, double next, int bits, const Use& use) {
  const float middle = float((number + next) / 2);
  use(float(number), bits);
  use(std::nextafter(middle, 0.0f), bits);
  use(middle, bits % 2 == 0 ? bits : bits + 1);
  use(std::nextafter(middle, kInfinity), bits + 1);
}

template <typename T>
int check_16_bits() {
  using F = Format<T>;
  std::vector<T> all, nearest;
  std::vector<float> widened, numbers;
  for (int bits = 0; bits < 0x10000; ++bits) {
    const int magnitude = bits & (F::kSign - 1);
    double value = F::number(magnitude);
    if (magnitude == F::kInfinite) value = kInfinity;
    if (magnitude > F::kInfinite) value = std::nan("");
    all.push_back(of_bits<T>(bits));
    widened.push_back(std::copysign(float(value), bits < F::kSign ? 1.0f : -1.0f));
  }
  const auto add = [&](float number, int bits) {
    numbers.insert(numbers.end(), {number, -number});
    nearest.insert(nearest.end(), {of_bits<T>(bits), of_bits<T>(bits | F::kSign)});
  };
  for (int bits = 0; bits < F::kInfinite; ++bits) around(F::number(bits), F::number(bits + 1), bits, add);
  add(kInfinity, F::kInfinite);
  add(std::numeric_limits<float>::max(), F::kInfinite);
  for (const uint32_t nan : {0x7fc00000u, 0x7f800001u, 0x7fffffffu}) add(std::bit_cast<float>(nan), 0x7fff);
  return check_widening(all, widened) + check_narrowing(numbers, nearest);
}

int check_bytes() {
  std::vector<uint8_t> all, nearest;
  std::vector<float> widened, numbers;
  const auto add = [&](float number, int nearest_byte) {  // the negative ones are 0
    numbers.insert(numbers.end(), {number, -number});
    nearest.insert(nearest.end(), {uint8_t(lesser(nearest_byte, 255)), 0});
  };
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(uint8_t(byte));
    widened.push_back(float(byte));
    around(byte, byte + 1, byte, add);
  }
  for (const float number : {256.0f, 65536.5f, 4294967296.0f, kInfinity}) add(number, 255);
  add(std::nanf(""), 0);
  return check_widening(all, widened) + check_narrowing(numbers, nearest);
}

}  // namespace racnn::cpu::RACNN_ISA

int main() {
  using namespace racnn::cpu;
  const int wrong =
      RACNN_ISA::check_16_bits<Half>() + RACNN_ISA::check_16_bits<BFloat16>() + RACNN_ISA::check_bytes();
  std::printf("%d wrong\n", wrong);
  return wrong == 0 ? 0 : 1;
}
