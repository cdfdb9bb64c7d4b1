// SPDX-License-Identifier: Apache-2.0
//
// The hash of fingerprints, of `lockstep verify` and of checkpoints. Not cryptographic: it finds accidents, not
// attacks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace lockstep {

/// 64-bit hash of dtype, sizes and bytes: equal for equal bits. Tensors of other devices are copied to the host.
std::uint64_t hash_of(const at::Tensor& tensor);
/// The same of a contiguous tensor that is not one yet: `bytes` bytes at `data`, which need not be aligned.
std::uint64_t hash_of(at::ScalarType dtype, at::IntArrayRef sizes, const void* data, std::size_t bytes);
/// Of a text: as of a uint8 tensor with one dimension.
std::uint64_t hash_of(std::string_view text);

}  // namespace lockstep
