// SPDX-License-Identifier: Apache-2.0
//
// Writing to a path that the user gave. A regular file, or a new one, is replaced as a whole: written beside its place
// under a temporary name, with the old file's mode and owner, then renamed. A symbolic link stays what it is: the file
// that it leads to is written. What is no regular file (a device, a FIFO, /dev/stdout, /dev/fd/N) is opened and written
// where it is: a rename would put a plain file in its place.
#pragma once

#include <string>

namespace lockstep {

/// Where a path leads.
struct OutputPlace {
  std::string path;       ///< links followed
  bool in_place = false;  ///< no regular file
  int descriptor = -1;    ///< in place, and one that is open in this process
};

/// Throws UserError when links lead round in a circle.
OutputPlace place_of_output(const std::string& path);

/// Before a long run: whether a file that a flag names can be written at its end. Throws UserError naming flag and
/// path.
void check_writable(const std::string& flag, const std::string& path);

/// Throws Error naming path and reason; then an old file is as it was.
void write_whole_file(const std::string& path, const std::string& text);

}  // namespace lockstep
