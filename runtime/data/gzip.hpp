// SPDX-License-Identifier: Apache-2.0
//
// gzip, as data sets are handed out in. Private to this folder.
#pragma once

#include <string>
#include <string_view>

namespace lockstep {

inline bool is_gzip(std::string_view bytes) {
  return bytes.starts_with("\x1f\x8b");
}

/// What is packed in `bytes`, the file at `path`; up to 2 GiB. Throws DataError that names the file. A build without
/// zlib (LOCKSTEP_IMAGES=OFF) says so.
std::string unpacked(std::string_view bytes, const std::string& path);

}  // namespace lockstep
