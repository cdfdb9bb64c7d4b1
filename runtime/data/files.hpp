// SPDX-License-Identifier: Apache-2.0
//
// Files for the readers: whole ones, and lists of them. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

/// The bytes of a file, or its first `most` (0: all). Throws DataError that names the path and the reason.
std::string read_file(const std::string& path, std::int64_t most = 0);

/// The regular files that match a glob(3) pattern, unsorted; folders are passed over. No shell: `~` and `${X}` are
/// ordinary characters. Empty when nothing matches. Throws DataError for a folder that cannot be listed.
std::vector<std::string> matching_files(const std::string& pattern);

/// The working folder, where relative paths start; for messages.
std::string working_folder();

}  // namespace lockstep
