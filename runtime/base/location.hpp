// SPDX-License-Identifier: Apache-2.0
//
// Where something was written by whoever configured it, for errors.
#pragma once

#include <string>

namespace lockstep {

/// Where a value stands: 1-based line and column (in characters), as editors count.
struct Location {
  std::string file;  ///< or "--set a.b=c" for an override
  int line = 0;      ///< 0: no line, as in overrides; then only `file` is shown
  int column = 0;
};

/// A value of a config: where it stands, and its key. Without a file: of something that no config has named.
struct Origin {
  Location at;
  std::string key;  ///< may be empty
};

/// What a message begins with: "configs/a.yaml:12:9: train.batch: "; empty without a file.
inline std::string prefix_of(const Origin& origin) {
  const Location& at = origin.at;
  if (at.file.empty()) return "";
  const std::string line = at.line == 0 ? "" : ":" + std::to_string(at.line) + ":" + std::to_string(at.column);
  return at.file + line + ": " + origin.key + (origin.key.empty() ? "" : ": ");
}

}  // namespace lockstep
