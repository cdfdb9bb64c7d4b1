// SPDX-License-Identifier: Apache-2.0
//
// The hash of fingerprints, of `lockstep verify` and of checkpoints. Not cryptographic: it finds accidents, not
// attacks. The same pass finds out whether all elements are finite.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep {

struct TensorScan {
  std::uint64_t hash = 0;  ///< hash_of()
  bool finite = true;      ///< no element is NaN or an infinity
};

/// One pass over a tensor. Those of other devices are copied to the host.
TensorScan scan_of(const at::Tensor& tensor);

/// The first element that is NaN, or, unless `infinities` are allowed, an infinity: "[3, 5] is nan"; empty when there
/// is none. For messages, after a scan.
std::string not_finite_element(const at::Tensor& tensor, bool infinities = false);

/// 64-bit hash of dtype, sizes and bytes: equal for equal bits. Tensors of other devices are copied to the host.
std::uint64_t hash_of(const at::Tensor& tensor);
/// Of a text: as of a uint8 tensor with one dimension.
std::uint64_t hash_of(std::string_view text);

/// The same of a text that comes piece by piece.
class TextHash {
 public:
  /// Of `size` bytes altogether.
  explicit TextHash(std::size_t size);
  /// The next bytes: a multiple of 8 of them, but for the last piece.
  void add(std::string_view piece);
  std::uint64_t value() const;

 private:
  std::uint64_t hash_, tail_ = 0;
  std::size_t size_;
};

}  // namespace lockstep
