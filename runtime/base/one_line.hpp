// SPDX-License-Identifier: Apache-2.0
//
// Text from outside (a key, a cell, a path) as part of a message: a message is one line, and a person reads it.
#pragma once

#include <string>

namespace lockstep {

/// Control characters become spaces; of more than `most` bytes the rest is "...".
std::string one_line(std::string text, std::size_t most = 4000);

}  // namespace lockstep
