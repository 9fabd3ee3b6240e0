// SPDX-License-Identifier: BSD-3-Clause
//
// What headers of a newer libstdc++ and glibc call, and those of an older system do not have. It is hidden in
// each library.
#include <bits/c++config.h>
// As elsewhere these are in libstdc++.so, headers do not let them be compiled.
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE 0
#include <new>
#include <sstream>

namespace std {

[[noreturn]] void __throw_bad_array_new_length() { throw bad_array_new_length(); }

template stringstream::basic_stringstream();
template ostringstream::basic_ostringstream();
template string stringbuf::str() const&;
template string stringbuf::str() &&;
template string stringstream::str() const&;
template string stringstream::str() &&;
template string ostringstream::str() const&;
template string ostringstream::str() &&;

}  // namespace std

extern "C" {
extern char __libc_single_threaded;
char __libc_single_threaded = 0;  // reference counts are atomic
}
