// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/tensor_hash.hpp"

#include <ATen/ATen.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  hash = (std::rotl(hash, 23) ^ word) * 0x9fb21c651e98df25ULL;
  return hash ^ (hash >> 32);
}

/// The elements of a word, all looked at at once. One is not finite when all its exponent bits are set; then nothing is
/// left of those that are missing, and adding all bits but the top one does not carry into the top one.
struct Elements {
  std::uint64_t exponents = 0, below_top = 0, top = 0;
  std::uint64_t not_finite(std::uint64_t word) const { return (((~word & exponents) + below_top) & top) ^ top; }
};

Elements elements_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return {0x7f8000007f800000, 0x7fffffff7fffffff, 0x8000000080000000};
  if (dtype == at::kDouble) return {0x7ff0000000000000, 0x7fffffffffffffff, 0x8000000000000000};
  if (dtype == at::kHalf) return {0x7c007c007c007c00, 0x7fff7fff7fff7fff, 0x8000800080008000};
  if (dtype == at::kBFloat16) return {0x7f807f807f807f80, 0x7fff7fff7fff7fff, 0x8000800080008000};
  return {};  // integers are finite
}

std::uint64_t begin_of(at::ScalarType dtype, at::IntArrayRef sizes) {
  std::uint64_t hash = mix(0, static_cast<std::uint64_t>(dtype));
  for (const std::int64_t size : sizes) hash = mix(hash, static_cast<std::uint64_t>(size));
  return hash;
}

TensorScan scan_of(at::ScalarType dtype, at::IntArrayRef sizes, const void* data, std::size_t count) {
  const Elements elements = elements_of(dtype);
  std::uint64_t hash = begin_of(dtype, sizes), not_finite = 0;
  const auto* bytes = static_cast<const char*>(data);
  std::size_t left = count;
  for (; left >= 8; left -= 8, bytes += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes, 8);
    hash = mix(hash, word);
    not_finite |= elements.not_finite(word);
  }
  std::uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, bytes, left);
  not_finite |= elements.not_finite(tail);
  return {mix(mix(hash, tail), count), not_finite == 0};
}

}  // namespace

TensorScan scan_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().cpu().contiguous();
  return scan_of(host.scalar_type(), host.sizes(), host.const_data_ptr(), host.nbytes());
}

std::string not_finite_element(const at::Tensor& tensor, bool infinities) {
  const at::Tensor host = tensor.detach().cpu().contiguous();
  const at::Tensor bad = (infinities ? at::isnan(host) : at::isfinite(host).logical_not()).flatten();
  if (!bad.any().item<bool>()) return "";
  const auto flat = bad.to(at::kByte).argmax().item<std::int64_t>();  // the first of the largest
  std::vector<std::int64_t> index(static_cast<std::size_t>(host.dim()));
  std::int64_t rest = flat;
  for (std::size_t i = index.size(); i-- > 0; rest /= host.size(static_cast<std::int64_t>(i)))
    index[i] = rest % host.size(static_cast<std::int64_t>(i));
  const auto value = host.flatten()[flat].item<double>();
  return concat("[", join(index), "] is ", std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

std::uint64_t hash_of(const at::Tensor& tensor) {
  return scan_of(tensor).hash;
}

std::uint64_t hash_of(std::string_view text) {
  const auto size = static_cast<std::int64_t>(text.size());
  return scan_of(at::kByte, {size}, text.data(), text.size()).hash;
}

TextHash::TextHash(std::size_t size) : hash_(begin_of(at::kByte, static_cast<std::int64_t>(size))), size_(size) {}

void TextHash::add(std::string_view piece) {
  for (; piece.size() >= 8; piece.remove_prefix(8)) {
    std::uint64_t word;
    std::memcpy(&word, piece.data(), 8);
    hash_ = mix(hash_, word);
  }
  if (!piece.empty()) std::memcpy(&tail_, piece.data(), piece.size());
}

std::uint64_t TextHash::value() const {
  return mix(mix(hash_, tail_), size_);
}

}  // namespace lockstep
