// SPDX-License-Identifier: Apache-2.0
//
// What stands for image_file.cpp and gzip.cpp in a build without libjpeg, libpng and zlib (LOCKSTEP_IMAGES=OFF).
#include "runtime/data/dataset.hpp"
#include "runtime/data/gzip.hpp"
#include "runtime/data/image_file.hpp"

namespace lockstep {

std::unique_ptr<ImageRows> open_image(const std::string& /*bytes*/, const std::string& path, int /*channels*/) {
  throw DataError(concat(path, ": this Lockstep was built without libjpeg and libpng (LOCKSTEP_IMAGES=OFF)"));
}

bool reads_images() {
  return false;
}

std::string unpacked(std::string_view /*bytes*/, const std::string& path) {
  throw DataError(concat(path, ": got gzip-compressed data, and this Lockstep was built without zlib ",
                         "(LOCKSTEP_IMAGES=OFF); unpack it first: gunzip"));
}

}  // namespace lockstep
