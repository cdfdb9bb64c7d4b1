// SPDX-License-Identifier: Apache-2.0
//
// What people read: numbers in one way everywhere, and text from outside (a key, a cell, a path, a library's exception)
// as part of a message, which is one line. Sizes: size.hpp.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace lockstep {

/// So many digits behind the point.
std::string fixed_text(double number, int digits);
/// Of microseconds: "0.012 ms", "1.23 ms", "12.3 ms", "1234 ms"; from ten seconds on "12.3 s".
std::string time_text(double us);
/// Of a share: "12.3 %".
std::string percent_text(double share);
/// "99999", "1.23 M", "45.6 M".
std::string count_text(std::int64_t count);

/// Control characters become spaces, bytes that are no UTF-8 become "\xff"; of more than `most` bytes the rest is
/// "...".
std::string one_line(std::string text, std::size_t most = 4000);

/// What an exception of a library says, without the library's own mark ("[json.exception.type_error.302] "); of the
/// file system: "PATH: No such file or directory".
std::string reason_of(const std::exception& error);

}  // namespace lockstep
