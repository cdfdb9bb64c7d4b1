// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011): random numbers
// as a function of key and counter, so that every device computes the same ones, in any order.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace lockstep {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

/// The four words of a counter.
PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key);

/// Which elements a draw keeps, bool, in the order of memory: element i is kept where word i mod 4 of the counter
/// (low and high word of i / 4, call, 0) is below probability * 2^32. Key: low and high word of `seed`. On the CPU a
/// loop; elsewhere some 130 of LibTorch's integer operators, each for 4 million elements.
at::Tensor philox_mask(at::IntArrayRef sizes, at::Device device, double probability, std::uint64_t seed,
                       std::uint32_t call);

}  // namespace lockstep
