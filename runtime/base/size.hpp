// SPDX-License-Identifier: Apache-2.0
//
// Sizes of memory as people write them: 2GiB, 512MiB, 1.5GB, 4096.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lockstep {

/// Bytes. A number >= 0, with a unit or none: B, KiB, MiB, GiB, TiB (powers of 1024), kB, KB, MB, GB, TB (powers of
/// 1000). Nullopt when it is none of these, negative or beyond 2^62.
std::optional<std::int64_t> parse_size(const std::string& text);
/// What parse_size accepts, for error messages.
std::string size_rule();
/// For people: "1.50 GiB", "512 MiB", "100 B"; of a part of a byte, the whole one.
std::string size_text(double bytes);
/// The shortest text that parse_size reads back exactly: "2GiB", "1500MiB", "4097".
std::string exact_size_text(std::int64_t bytes);

}  // namespace lockstep
