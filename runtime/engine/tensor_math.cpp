// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/tensor_math.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

at::Tensor on_host(const at::Tensor& tensor) {
  return tensor.detach().cpu().contiguous();
}

// Lanes are part of the definition of the sum; the compiler may map them to any registers.
constexpr std::size_t kLanes = 16;

// An element is not finite exactly when all its exponent bits are set; adding one exponent step then carries out of
// them.
template <typename Word, Word kExponent>
bool finite_words(const Word* words, std::size_t count) {
  constexpr std::size_t kBlock = 4096;  // leave early, but not so often that the loop stops being a vector loop
  for (std::size_t start = 0; start < count; start += kBlock) {
    const std::size_t end = std::min(count, start + kBlock);
    unsigned bad = 0;
    for (std::size_t i = start; i < end; ++i) bad |= (words[i] & kExponent) == kExponent;
    if (bad) return false;
  }
  return true;
}

template <typename T>
double square_of_block(const T* data, std::size_t count) {
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double x = data[i + lane];
      sums[lane] += x * x;
    }
  double total = 0;
  for (const double sum : sums) total += sum;
  for (; i < count; ++i) total += static_cast<double>(data[i]) * data[i];
  return total;
}

template <typename T>
double sum_of_squares(const at::Tensor& host) {
  const T* data = host.const_data_ptr<T>();
  const auto count = static_cast<std::size_t>(host.numel());
  double total = 0;
  for (std::size_t begin = 0; begin < count; begin += kNormBlock)
    total += square_of_block(data + begin, std::min(kNormBlock, count - begin));
  return total;
}

}  // namespace

double squared_norm(const at::Tensor& tensor) {
  const at::Tensor host = on_host(tensor);
  if (host.scalar_type() == at::kDouble) return sum_of_squares<double>(host);
  LOCKSTEP_CHECK(host.scalar_type() == at::kFloat, "squared norms are taken of float32 and float64 gradients");
  return sum_of_squares<float>(host);
}

bool all_finite(const at::Tensor& tensor) {
  if (!tensor.defined() || !at::isFloatingType(tensor.scalar_type())) return true;
  if (!tensor.device().is_cpu() || !tensor.is_contiguous()) return at::isfinite(tensor).all().item<bool>();
  const auto count = static_cast<std::size_t>(tensor.numel());
  if (tensor.scalar_type() == at::kFloat)
    return finite_words<std::uint32_t, 0x7f800000u>(static_cast<const std::uint32_t*>(tensor.const_data_ptr()), count);
  if (tensor.scalar_type() == at::kDouble)
    return finite_words<std::uint64_t, 0x7ff0000000000000u>(static_cast<const std::uint64_t*>(tensor.const_data_ptr()),
                                                            count);
  if (tensor.scalar_type() == at::kBFloat16)
    return finite_words<std::uint16_t, 0x7f80u>(static_cast<const std::uint16_t*>(tensor.const_data_ptr()), count);
  return at::isfinite(tensor).all().item<bool>();
}

}  // namespace lockstep
