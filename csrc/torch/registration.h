// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>

#include "copies.h"

namespace racnn {

using Library = torch::stable::detail::StableLibrary;
using Kind = Library::Kind;

// As the macros STABLE_TORCH_LIBRARY_FRAGMENT and STABLE_TORCH_LIBRARY_IMPL, which know no namespace of run
// time.
struct Registration {
  Registration(Kind kind, void (*registers)(Library&), const char* key, const char* file, int line)
      : name(own_namespace()), library(kind, registers, name.c_str(), key, file, line) {}
  const std::string name;
  torch::stable::detail::StableTorchLibraryInit library;
};

}  // namespace racnn
