// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/request_dataset.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace lockstep {
namespace {

std::string shape_text(const at::Tensor& tensor) {
  return tensor.defined() ? concat(c10::toString(tensor.scalar_type()), " [", join(tensor.sizes()), "]") : "no tensor";
}

}  // namespace

std::int64_t rows_of(const std::vector<NamedTensor>& inputs) {
  if (inputs.empty()) throw UserError("predict: got no inputs, expected x, and what else the model reads");
  for (const auto& [name, tensor, unused] : inputs)
    if (!tensor.defined() || tensor.dim() == 0 || tensor.size(0) < 1 || !tensor.is_cpu() ||
        tensor.size(0) != inputs.front().tensor.size(0))
      throw UserError(concat("predict: got ", name, " ", shape_text(tensor),
                             ", expected [rows, ...] of the host, one row or more",
                             inputs.size() > 1 ? ", as many of each" : ""));
  return inputs.front().tensor.size(0);
}

RequestDataset::RequestDataset(const std::vector<NamedTensor>& like) {
  for (const NamedTensor& entry : like)
    forms_.push_back({.name = entry.name,
                      .dtype = entry.tensor.scalar_type(),
                      .sizes = entry.tensor.sizes().vec(),
                      .differentiable = false});
  forms_.push_back({.name = "targets", .dtype = at::kLong, .sizes = {1}, .differentiable = false});
}

void RequestDataset::add(const std::vector<NamedTensor>& rows) {
  const std::lock_guard lock(mutex_);
  const std::size_t wanted = forms_.size() - 1;  // without targets
  Tensors tensors;
  for (std::size_t i = 0; i < std::max(wanted, rows.size()); ++i) {
    const std::string expected = i < wanted ? to_string(forms_[i]) : "none";
    if (i >= rows.size())
      throw UserError(concat("predict: got no further input, expected ", expected, ", as in the first call"));
    const auto& [name, tensor, unused] = rows[i];
    if (i >= wanted || name != forms_[i].name || tensor.scalar_type() != forms_[i].dtype ||
        tensor.sizes().slice(1) != at::IntArrayRef(forms_[i].sizes).slice(1))
      throw UserError(
          concat("predict: got ", name, " ", shape_text(tensor), ", expected ", expected, ", as in the first call"));
    tensors.push_back(tensor.contiguous());
  }
  first_ = size_;
  size_ += rows_of(rows);
  rows_ = std::move(tensors);
}

std::vector<EntrySpec> RequestDataset::entries(std::int64_t rows) const {
  std::vector<EntrySpec> entries = forms_;
  for (EntrySpec& entry : entries) entry.sizes[0] = rows;
  return entries;
}

std::int64_t RequestDataset::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

Tensors RequestDataset::read(const std::vector<std::int64_t>& samples) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::int64_t> rows;
  std::transform(samples.begin(), samples.end(), std::back_inserter(rows),
                 [&](std::int64_t sample) { return sample - first_; });
  const at::Tensor index = at::tensor(rows);
  Tensors entries;
  for (const at::Tensor& all : rows_) entries.push_back(all.index_select(0, index));
  entries.push_back(at::zeros({static_cast<std::int64_t>(samples.size())}, at::kLong));
  return entries;
}

}  // namespace lockstep
