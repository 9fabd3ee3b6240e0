// SPDX-License-Identifier: BSD-3-Clause
//
// What headers of a newer libstdc++ and glibc call, and those of an older system do not have.
#include <new>

namespace std {
[[noreturn]] void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std

extern "C" {
extern const char __libc_single_threaded;
const char __libc_single_threaded = 0;  // reference counts are atomic
}
