// SPDX-License-Identifier: Apache-2.0
//
// Images of one size, byte by byte in a few files, as MNIST and CIFAR are handed out. Private to this folder.
#pragma once

#include <memory>
#include <vector>

#include "runtime/data/file_bytes.hpp"
#include "runtime/data/pixels.hpp"

namespace lockstep {

struct ByteImages {
  /// Images of one file, one behind the other.
  struct Part {
    std::int64_t begin = 0;             ///< the number of its first image
    std::size_t first = 0, stride = 0;  ///< bytes: to the first image, and from one to the next
  };
  OpenFiles files;
  std::vector<Part> parts;           ///< by file
  std::vector<std::uint8_t> labels;  ///< by image; at least one
  std::int64_t channels = 1, height = 0, width = 0;
  std::vector<DataFile> records;
};

struct ByteImageOptions {
  PixelValues values;
  bool flat = false;  ///< x is [rows, channels * height * width], not [rows, channels, height, width]
  int padding = 0;    ///< when drawn: so many pixels of 0 around the image, of which one of its size is cut out
  double flip = 0;    ///< when drawn: the probability of a mirror image, left for right
  std::uint64_t seed = 1;
  std::int64_t classes = 0;  ///< 0: as many as the labels say
};

/// The keys `mean`, `std` and `augment: {padding, flip}`.
ByteImageOptions read_byte_image_options(const Section& section, int channels, std::uint64_t seed);

/// x float32, targets int64 [rows].
std::shared_ptr<const Dataset> byte_image_dataset(std::shared_ptr<const ByteImages> images,
                                                  const ByteImageOptions& options);

}  // namespace lockstep
