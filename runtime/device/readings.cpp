// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/readings.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "runtime/device/staging.hpp"

namespace lockstep {
namespace {

std::span<const double> values_of(const at::Tensor& numbers) {
  return {numbers.const_data_ptr<double>(), static_cast<std::size_t>(numbers.numel())};
}

}  // namespace

void Readings::add(const at::Tensor& numbers, Take take) {
  const at::Tensor flat = numbers.detach().reshape({-1});
  if (flat.device().is_cpu())
    take(values_of(flat.to(at::kDouble).contiguous()));
  else
    awaited_.emplace_back(flat, std::move(take));
}

void Readings::fetch() {
  if (awaited_.empty()) return;
  const at::NoGradGuard no_grad;
  // What has one dtype is put together as it is: a cast of each would cost more than all the rest.
  std::map<at::ScalarType, std::vector<std::size_t>> of_dtype;
  for (std::size_t i = 0; i < awaited_.size(); ++i) of_dtype[awaited_[i].first.scalar_type()].push_back(i);
  std::vector<at::Tensor> parts;
  for (const auto& [dtype, members] : of_dtype) {
    std::vector<at::Tensor> some;
    for (const std::size_t i : members) some.push_back(awaited_[i].first);
    parts.push_back(at::cat(some).to(at::kDouble));
    order_.insert(order_.end(), members.begin(), members.end());
  }
  numbers_ = to_host_later(at::cat(parts));
}

void Readings::take() {
  std::vector<std::span<const double>> values(awaited_.size());
  std::size_t next = 0;
  for (const std::size_t i : order_) {
    const auto count = static_cast<std::size_t>(awaited_[i].first.numel());
    values[i] = values_of(numbers_).subspan(next, count);
    next += count;
  }
  for (std::size_t i = 0; i < values.size(); ++i) awaited_[i].second(values[i]);
  *this = {};
}

}  // namespace lockstep
