// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/tensor_hash.hpp"

#include <ATen/ATen.h>

#include <bit>
#include <cstring>

namespace lockstep {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  hash = (std::rotl(hash, 23) ^ word) * 0x9fb21c651e98df25ULL;
  return hash ^ (hash >> 32);
}

}  // namespace

std::uint64_t hash_of(at::ScalarType dtype, at::IntArrayRef sizes, const void* data, std::size_t count) {
  std::uint64_t hash = mix(0, static_cast<std::uint64_t>(dtype));
  for (const std::int64_t size : sizes) hash = mix(hash, static_cast<std::uint64_t>(size));
  const auto* bytes = static_cast<const char*>(data);
  std::size_t left = count;
  for (; left >= 8; left -= 8, bytes += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes, 8);
    hash = mix(hash, word);
  }
  std::uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, bytes, left);
  return mix(mix(hash, tail), count);
}

std::uint64_t hash_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().cpu().contiguous();
  return hash_of(host.scalar_type(), host.sizes(), host.const_data_ptr(), host.nbytes());
}

std::uint64_t hash_of(std::string_view text) {
  const auto size = static_cast<std::int64_t>(text.size());
  return hash_of(at::kByte, {size}, text.data(), text.size());
}

}  // namespace lockstep
