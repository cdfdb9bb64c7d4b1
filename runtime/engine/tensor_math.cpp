// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/tensor_math.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/device/staging.hpp"

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
  constexpr std::size_t block = kNormBlock;
  for (std::size_t begin = 0; begin < count; begin += block)
    total += square_of_block(data + begin, std::min(block, count - begin));
  return total;
}

/// Sums of squares of blocks on a device, double. Of one shape always, [kRows, kNormBlock], what is not there 0: the
/// order in which a device adds up a row depends on how many there are.
class BlockSums {
 public:
  explicit BlockSums(at::Device device) : options_(at::TensorOptions(at::kDouble).device(device)) {}

  void add(const at::Tensor& tensor) {
    const at::Tensor flat = tensor.detach().reshape({-1});
    for (std::int64_t begin = 0; begin < flat.numel();) {
      if (used_ == kRows) sum_up();
      if (!rows_.defined()) rows_ = at::zeros({kRows * kBlock}, options_);
      const std::int64_t count = std::min((kRows - used_) * kBlock, flat.numel() - begin);
      rows_.narrow(0, used_ * kBlock, count).copy_(flat.narrow(0, begin, count));
      used_ += (count + kBlock - 1) / kBlock;
      begin += count;
    }
    ends_.push_back(static_cast<std::int64_t>(sums_.size()) * kRows + used_);
  }

  /// [tensors that were added]: each one's blocks are added up in their order.
  at::Tensor take() {
    sum_up();
    const at::Tensor zero = at::zeros({1}, options_), blocks = sums_.empty() ? zero : at::cat(sums_);
    std::vector<at::Tensor> each;
    std::int64_t begin = 0;
    for (const std::int64_t end : ends_) {
      const at::Tensor of_tensor = blocks.narrow(0, begin, end - begin);
      each.push_back(end - begin == 1 ? of_tensor : at::cat({zero, of_tensor}).sum().reshape({1}));
      begin = end;
    }
    return at::cat(each);
  }

 private:
  static constexpr std::int64_t kRows = 16, kBlock = kNormBlock;

  void sum_up() {
    if (used_ > 0) sums_.push_back(rows_.view({kRows, kBlock}).square_().sum(1));
    used_ = 0;
    rows_.reset();
  }

  at::TensorOptions options_;
  at::Tensor rows_;
  std::int64_t used_ = 0;           // of rows_; of those before all were
  std::vector<std::int64_t> ends_;  // by tensor, in all rows
  std::vector<at::Tensor> sums_;
};

/// `order`: by parameter, where its blocks are.
at::Tensor total_norm_there(const at::Tensor& squares, const std::vector<std::vector<std::int64_t>>& order) {
  const auto some = [&](const std::vector<std::int64_t>& of) {
    return squares.index_select(0, to_device(at::tensor(of), squares.device()));
  };
  std::vector<std::int64_t> whole;
  for (const std::vector<std::int64_t>& of : order) whole.push_back(of.front());
  at::Tensor sums = some(whole);
  for (std::size_t i = 0; i < order.size(); ++i)  // added as BlockSums does
    if (order[i].size() > 1)
      sums.narrow(0, static_cast<std::int64_t>(i), 1)
          .copy_(at::cat({at::zeros({1}, squares.options()), some(order[i])}).sum().reshape({1}));
  return sums.sum().sqrt();
}

}  // namespace

double squared_norm(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().contiguous();
  if (flat.scalar_type() == at::kDouble) return sum_of_squares<double>(flat);
  LOCKSTEP_CHECK(flat.scalar_type() == at::kFloat, "squared norms are taken of float32 and float64 gradients");
  return sum_of_squares<float>(flat);
}

at::Tensor squared_norms(const std::vector<at::Tensor>& tensors, at::Device device) {
  const at::NoGradGuard no_grad;
  const auto count = static_cast<std::int64_t>(tensors.size());
  at::Tensor squares = at::empty({count}, at::TensorOptions(at::kDouble).device(device));
  if (device.is_cpu()) {
    std::transform(tensors.begin(), tensors.end(), squares.mutable_data_ptr<double>(), squared_norm);
  } else if (count > 0) {
    BlockSums sums(device);
    for (const at::Tensor& tensor : tensors) sums.add(tensor);
    squares = sums.take();
  }
  return squares;
}

at::Tensor total_norm(const std::vector<SquaredNorms>& parts, at::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> squares;
  std::map<std::pair<int, int>, std::int64_t> place;  // in all of them, by parameter and block
  for (const SquaredNorms& part : parts) {
    for (std::size_t i = 0; i < part.parameters.size(); ++i)
      place.emplace(std::pair(part.parameters[i], part.blocks[i]), static_cast<std::int64_t>(place.size()));
    squares.push_back(to_device(part.squares, device));
  }
  std::vector<std::vector<std::int64_t>> order;  // by parameter
  int last = -1;
  for (const auto& [of, at] : place) {
    if (std::exchange(last, of.first) != of.first) order.emplace_back();
    order.back().push_back(at);
  }
  const at::Tensor all = at::cat(squares);
  if (!device.is_cpu()) return total_norm_there(all, order);
  double sum = 0;
  for (const std::vector<std::int64_t>& of : order) {
    double of_parameter = 0;
    for (const std::int64_t at : of) of_parameter += all.const_data_ptr<double>()[at];
    sum += of_parameter;
  }
  return at::full({}, std::sqrt(sum), at::kDouble);
}

at::Tensor elements_of(const at::Tensor& tensor, std::int64_t begin, std::int64_t end) {
  if (begin == 0 && end == tensor.numel()) return tensor;
  return tensor.detach().view({-1}).narrow(0, begin, end - begin);
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
