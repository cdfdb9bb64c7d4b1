// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/tensor_math.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

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

/// On its device, in order: so many blocks at a time as double makes no large tensor of.
std::vector<at::Tensor> sums_of_blocks(const at::Tensor& tensor) {
  constexpr std::int64_t block = kNormBlock, at_once = 64 * block;
  const at::NoGradGuard no_grad;
  const at::Tensor flat = tensor.detach().reshape({-1});
  std::vector<at::Tensor> sums;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += at_once) {
    const at::Tensor some = flat.narrow(0, begin, std::min(at_once, flat.numel() - begin));
    const std::int64_t whole = some.numel() / block * block;
    if (whole > 0) sums.push_back(some.narrow(0, 0, whole).view({-1, block}).to(at::kDouble).square().sum(1));
    if (whole < some.numel())
      sums.push_back(some.narrow(0, whole, some.numel() - whole).view({1, -1}).to(at::kDouble).square().sum(1));
  }
  return sums;
}

}  // namespace

double squared_norm(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().contiguous();
  if (flat.scalar_type() == at::kDouble) return sum_of_squares<double>(flat);
  LOCKSTEP_CHECK(flat.scalar_type() == at::kFloat, "squared norms are taken of float32 and float64 gradients");
  return sum_of_squares<float>(flat);
}

std::vector<double> squared_norms(const std::vector<at::Tensor>& tensors) {
  std::vector<double> squares(tensors.size());
  std::vector<at::Tensor> sums;    // of blocks, of what is on a device
  std::vector<std::size_t> whose;  // parallel
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].device().is_cpu()) {
      squares[i] = squared_norm(tensors[i]);
    } else {
      for (at::Tensor& some : sums_of_blocks(tensors[i])) {
        sums.push_back(std::move(some));
        whose.push_back(i);
      }
    }
  if (sums.empty()) return squares;
  const at::Tensor all = at::cat(sums).cpu();
  const double* next = all.const_data_ptr<double>();
  for (std::size_t s = 0; s < sums.size(); ++s)
    for (std::int64_t block = 0; block < sums[s].numel(); ++block) squares[whose[s]] += *next++;
  return squares;
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
