// SPDX-License-Identifier: BSD-3-Clause
//
// Copies of a library in one process. The operators' namespace is the name of the file, so that a copy of
// another name has operators of its own. One of the same name registers none: its initialisers run inside
// dlopen, where an exception of torch's about operators that exist already would end the process.
#pragma once

#include <dlfcn.h>
#include <link.h>

#include <string>

namespace racnn {

// The file of this library.
inline std::string own_file() {
  Dl_info info{};
  static const char here = 0;
  return dladdr(&here, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

// racnn_ops of libracnn_ops.so and of libracnn_ops_cuda.so.
inline std::string own_namespace() {
  const auto without = [](const std::string& name, const std::string& end) {
    const size_t rest = name.size() < end.size() ? 0 : name.size() - end.size();
    return name.compare(rest, end.size(), end) == 0 ? name.substr(0, rest) : name;
  };
  const std::string file = own_file();
  return without(without(file.substr(file.rfind('/') + 1), ".so"), "_cuda").substr(3);
}

// The file of a copy that was loaded before this one; empty: there is none, and this one may register.
inline std::string earlier_copy() {
  struct Search {
    std::string own, found;
  } search{own_file(), ""};
  const auto look = [](dl_phdr_info* object, size_t, void* data) {
    Search& search = *static_cast<Search*>(data);
    const auto name = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
    const std::string file = object->dlpi_name;
    if (file != search.own && name(file) == name(search.own)) search.found = file;
    return 0;
  };
  dl_iterate_phdr(look, &search);
  return search.found;
}

}  // namespace racnn
