// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/readings.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

namespace lockstep {

void Readings::add(const at::Tensor& scalar, const Take& take) {
  if (scalar.device().is_cpu())
    take(scalar.item<double>());
  else
    awaited_.emplace_back(scalar.detach().reshape({1}), take);
}

void Readings::read() {
  if (awaited_.empty()) return;
  const at::NoGradGuard no_grad;
  // What has one dtype is put together as it is: a cast of each would cost more than all the rest.
  std::map<at::ScalarType, std::vector<std::size_t>> of_dtype;
  for (std::size_t i = 0; i < awaited_.size(); ++i) of_dtype[awaited_[i].first.scalar_type()].push_back(i);
  std::vector<at::Tensor> parts;
  std::vector<std::size_t> order;
  for (const auto& [dtype, members] : of_dtype) {
    std::vector<at::Tensor> scalars;
    for (const std::size_t i : members) scalars.push_back(awaited_[i].first);
    parts.push_back(at::cat(scalars).to(at::kDouble));
    order.insert(order.end(), members.begin(), members.end());
  }
  const at::Tensor all = at::cat(parts).cpu();
  std::vector<double> values(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) values[order[i]] = all.const_data_ptr<double>()[i];
  for (std::size_t i = 0; i < values.size(); ++i) awaited_[i].second(values[i]);
  awaited_.clear();
}

}  // namespace lockstep
