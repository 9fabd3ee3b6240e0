// SPDX-License-Identifier: BSD-3-Clause
//
// How much memory, on the host. Tensors of stride 0 may have any sizes, and a product of sizes that wrapped
// around would be a workspace too small for its kernel.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace racnn {

// The product of `factors`, all at least 0; where int64 does not hold it, an error that says what is too
// large.
inline int64_t checked_product(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  bool overflow = false;
  for (const int64_t factor : factors) overflow |= __builtin_mul_overflow(product, factor, &product);
  if (!overflow) return product;
  std::string message = std::string(what) + " is too large:";
  const char* before = " ";
  for (const int64_t factor : factors) {
    message += before + std::to_string(factor);
    before = " x ";
  }
  throw std::runtime_error(message + " numbers");
}

}  // namespace racnn
