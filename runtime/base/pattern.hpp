// SPDX-License-Identifier: Apache-2.0
//
// Names with shell wildcards: * ? [...].
#pragma once

#include <fnmatch.h>

#include <algorithm>
#include <string>
#include <vector>

namespace lockstep {

inline bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}
/// Any of them.
inline bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(pattern, name); });
}

}  // namespace lockstep
