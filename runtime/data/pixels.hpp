// SPDX-License-Identifier: Apache-2.0
//
// What image readers share: bytes as numbers of a tensor, and what is changed at random. Private to this folder.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/config/section.hpp"
#include "runtime/data/random_stream.hpp"

namespace lockstep {

/// By channel, what a byte becomes: (byte / 255 - mean) / std, each step rounded to float32, as torchvision's ToTensor
/// and Normalize do.
using PixelValues = std::vector<std::array<float, 256>>;

/// The keys `mean` and `std`: a number, a list of one for each channel, or `imagenet` (of three channels).
PixelValues read_pixel_values(const Section& section, int channels);

/// Random numbers of a drawn sample: of the seed and its number (Dataset::draw) alone.
RandomStream augmentation(std::uint64_t seed, std::int64_t drawn);

/// The probability of a mirror image, left for right: the key `flip`.
double read_flip(const Section& augment);

}  // namespace lockstep
