// SPDX-License-Identifier: Apache-2.0
//
// Files for the readers: whole ones, and lists of them. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// The bytes of a file, or its first `most` (0: all). Throws DataError that names the path and the reason.
std::string read_file(const std::string& path, std::int64_t most = 0);

/// A file whose bytes have just been read.
DataFile data_file(const std::string& path, std::string_view bytes);

/// Why these bytes are no text of lines: compressed, a table of another format, UTF-16, ...; with what to do about it.
/// Empty: they may be. (foreign.cpp)
std::string foreign_format(std::string_view bytes);

/// The regular files that match a glob(3) pattern, unsorted; folders are passed over. A name that exists is taken as it
/// is, part by part: `d[1]/*.txt` looks into a folder `d[1]` where there is one. No shell: `~` and `${X}` are ordinary
/// characters. Empty when nothing matches. Throws DataError for a folder that cannot be listed.
std::vector<std::string> matching_files(const std::string& pattern);

/// A file name or pattern, or a list of them.
std::vector<std::string> read_patterns(const Section& section, const std::string& key);

/// All files that they match, each once, in byte order of their paths. ConfigError at `key` for a pattern that matches
/// none.
std::vector<std::string> files_of(const Section& section, const std::string& key,
                                  const std::vector<std::string>& patterns);

/// "a.bin and 2 more"
std::string names_of(const std::vector<std::string>& files);

/// The working folder, where relative paths start; for messages.
std::string working_folder();

}  // namespace lockstep
