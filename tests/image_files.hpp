// SPDX-License-Identifier: Apache-2.0
//
// Small files of images, made in memory, for the tests of their readers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::test {

/// An IDX file of unsigned bytes.
inline std::string idx_file(const std::vector<std::uint32_t>& sizes, const std::string& bytes) {
  std::string file = {0, 0, 8, static_cast<char>(sizes.size())};
  for (const std::uint32_t size : sizes)
    for (const int shift : {24, 16, 8, 0}) file += static_cast<char>(size >> shift);
  return file + bytes;
}

// Only where Lockstep is built with LOCKSTEP_IMAGES.

std::string gzip_of(const std::string& bytes);

struct Picture {
  int width = 0, height = 0, channels = 3;
  std::vector<std::uint8_t> bytes;  ///< [height, width, channels]
};

/// Smooth, of that size, another one for each `kind`.
Picture picture(int width, int height, int channels, int kind);
/// 1: grey, 2: grey with alpha, 3: RGB, 4: RGB with alpha. `depth`: 8 or 16 bits.
std::string png_of(const Picture& picture, int depth = 8, bool interlaced = false);
/// 1: grey, 3: RGB, 4: CMYK.
std::string jpeg_of(const Picture& picture, int quality = 90, bool progressive = false);

}  // namespace lockstep::test
