// SPDX-License-Identifier: Apache-2.0
//
// Files for the readers: whole ones, and lists of them. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep {

/// The bytes of a file, or its first `most` (0: all). Throws DataError that names the path and the reason.
std::string read_file(const std::string& path, std::int64_t most = 0);

/// Why these bytes are no text of lines: compressed, a table of another format, UTF-16, ...; with what to do about it.
/// Empty: they may be. (foreign.cpp)
std::string foreign_format(std::string_view bytes);

/// The regular files that match a glob(3) pattern, unsorted; folders are passed over. A name that exists is taken as it
/// is, part by part: `d[1]/*.txt` looks into a folder `d[1]` where there is one. No shell: `~` and `${X}` are ordinary
/// characters. Empty when nothing matches. Throws DataError for a folder that cannot be listed.
std::vector<std::string> matching_files(const std::string& pattern);

/// The working folder, where relative paths start; for messages.
std::string working_folder();

}  // namespace lockstep
