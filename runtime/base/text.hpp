// SPDX-License-Identifier: Apache-2.0
//
// Text from outside (a key, a cell, a path, a library's exception) as part of a message: a message is one line, and a
// person reads it.
#pragma once

#include <exception>
#include <string>

namespace lockstep {

/// Control characters become spaces, bytes that are no UTF-8 become "\xff"; of more than `most` bytes the rest is
/// "...".
std::string one_line(std::string text, std::size_t most = 4000);

/// What an exception of a library says, without the library's own mark ("[json.exception.type_error.302] "); of the
/// file system: "PATH: No such file or directory".
std::string reason_of(const std::exception& error);

}  // namespace lockstep
