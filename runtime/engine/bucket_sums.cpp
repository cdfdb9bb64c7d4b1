// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/bucket_sums.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/device/staging.hpp"
#include "runtime/engine/tensor_math.hpp"

namespace lockstep {
namespace {

at::Tensor flat_elements(const at::Tensor& tensor, const Slice& slice) {
  return elements_of(tensor, slice.begin, slice.end).view({-1});
}

// In a message: a tensor, or of a sparse parameter two.
void append(Tensors& message, const Gradient& gradient, bool is_sparse) {
  message.push_back(gradient.values);
  if (is_sparse) message.push_back(gradient.rows);
}
Gradient next_of(const Tensors& message, std::size_t& next, bool is_sparse) {
  Gradient gradient{message.at(next++)};
  if (is_sparse) gradient.rows = message.at(next++);
  return gradient;
}

}  // namespace

void BucketSums::add_up() {
  if (std::exchange(added_up_, true)) return;
  own_.clear();
  for (Parameter* parameter : held_) own_.push_back(parameter->add_up());
  received_.resize(held_.size());
}

Gradient BucketSums::own_part(const GroupSum& sum, const Slice& slice) const {
  return parameter(slice).is_sparse ? sum.sum : Gradient{flat_elements(sum.sum.values, slice)};
}

Tensors BucketSums::gradients_for(WorkerId row) {
  add_up();
  std::vector<std::int64_t> numbers;  // of each tensor: parameter, group
  Tensors message = {at::Tensor()};
  for (const Slice& slice : bucket_.blocks.slices(work_.sums[static_cast<std::size_t>(work_.replica_of(row))]))
    for (const GroupSum& sum : own_[static_cast<std::size_t>(slice.parameter)]) {
      numbers.insert(numbers.end(), {slice.parameter, sum.first});
      append(message, own_part(sum, slice), parameter(slice).is_sparse);
    }
  message.front() = at::tensor(numbers, at::kLong);
  return message;
}

void BucketSums::put_gradients(const Tensors& of_another) {
  add_up();
  const at::Tensor numbers = of_another.at(0).to(at::kCPU);
  const auto* number = numbers.const_data_ptr<std::int64_t>();
  for (std::size_t next = 1; next < of_another.size(); number += 2) {
    const auto at = static_cast<std::size_t>(number[0]);
    received_[at].push_back({static_cast<int>(number[1]), next_of(of_another, next, kept_[at]->is_sparse)});
  }
}

/// Elements of the slice, flat, or all of a sparse parameter's, which are ours then.
Gradient BucketSums::sum_of(const Slice& slice) {
  const auto at = static_cast<std::size_t>(slice.parameter);
  const bool is_sparse = parameter(slice).is_sparse;
  std::vector<TreeSum<Term>::Node> terms;
  const auto add_term = [&](int first, const Gradient& gradient, bool ours) {
    const at::Device device = parameter(slice).value.device();
    Gradient there{to_device(gradient.values, device)};
    if (is_sparse) there.rows = to_device(gradient.rows, device);
    ours = ours || !there.values.is_same(gradient.values);
    terms.push_back({first, {std::move(there), ours}});
  };
  for (const GroupSum& sum : own_[at]) add_term(sum.first, own_part(sum, slice), /*ours=*/true);
  for (const GroupSum& sum : received_[at]) add_term(sum.first, sum.sum, /*ours=*/false);
  std::sort(terms.begin(), terms.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  // Nobody else reads these elements of ours, and a + b is b + a.
  const auto add = [&](Term left, Term right) {
    if (!is_sparse && !left.ours && right.ours) std::swap(left, right);
    if (!is_sparse && !left.ours) return Term{{left.gradient.values + right.gradient.values}, true};
    if (!left.ours) left.gradient.values = left.gradient.values.clone();
    return Term{lockstep::sum_of(std::move(left.gradient), right.gradient), true};
  };
  constexpr TermRange all{0, std::numeric_limits<int>::max()};
  TreeSum<Term> sum;
  for (auto& [group, term] : terms) sum.push(group, std::move(term), all, add);
  std::vector<TreeSum<Term>::Node> whole = sum.finish(all, add);
  LOCKSTEP_CHECK(whole.size() <= 1, whole.size(), " sums of all groups");
  if (whole.empty()) return {};
  auto& [gradient, ours] = whole.front().sum;
  if (is_sparse && !ours) gradient.values = gradient.values.clone();
  return gradient;
}

/// Whether our own gradients, which are of no more use, may take the sums.
bool BucketSums::has_place(const Slice& slice) const {
  const std::vector<GroupSum>& own = own_[static_cast<std::size_t>(slice.parameter)];
  return !own.empty() && own.front().sum.values.device() == parameter(slice).value.device();
}

at::Tensor BucketSums::place_of_sum(const Slice& slice) {
  Parameter& summed = parameter(slice);
  if (has_place(slice))
    summed.gradient = own_[static_cast<std::size_t>(slice.parameter)].front().sum.values;
  else if (!summed.gradient.defined())
    summed.begin_gradient(at::empty_like(summed.value));
  return flat_elements(summed.gradient, slice);
}

void BucketSums::reduce() {
  const at::NoGradGuard no_grad;
  add_up();
  const std::vector<Slice> mine = summed();
  std::vector<Gradient> sums;
  for (const Slice& slice : mine) sums.push_back(sum_of(slice));
  // Where something is updated here that was summed elsewhere, its sums go where our own gradients are.
  for (const Slice& slice : updated())
    if (!parameter(slice).is_sparse && has_place(slice)) place_of_sum(slice);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!sums[i].values.defined()) continue;
    if (Parameter& summed = parameter(mine[i]); summed.is_sparse) {
      rows_[mine[i].parameter] = sums[i].rows;
      summed.begin_gradient(std::move(sums[i].values), std::move(sums[i].rows));
      continue;
    }
    const at::Tensor place = place_of_sum(mine[i]);
    if (place.data_ptr() != sums[i].values.data_ptr()) place.copy_(sums[i].values);
  }
  own_.clear();
  received_.clear();
}

Tensors BucketSums::sums_for(WorkerId row) const {
  const TermRange wanted = work_.updates[static_cast<std::size_t>(work_.replica_of(row))];
  Tensors message;
  for (const Slice& slice : bucket_.blocks.slices(both_of(work_.sums[static_cast<std::size_t>(replica_)], wanted))) {
    const Parameter& summed = parameter(slice);
    const at::Tensor& gradient = summed.gradient;
    const bool flat = gradient.defined() && !summed.is_sparse;
    append(message, {flat ? flat_elements(gradient, slice) : gradient, summed.rows}, summed.is_sparse);
  }
  return message;
}

void BucketSums::put_sums(WorkerId from, const Tensors& sums) {
  const at::NoGradGuard no_grad;
  const TermRange theirs = work_.sums[static_cast<std::size_t>(work_.replica_of(from))];
  std::size_t next = 0;
  for (const Slice& slice : bucket_.blocks.slices(both_of(theirs, work_.updates[static_cast<std::size_t>(replica_)]))) {
    Parameter& updated = parameter(slice);
    Gradient sum = next_of(sums, next, updated.is_sparse);
    if (!sum.values.defined()) continue;
    if (updated.is_sparse || slice.elements() == updated.value.numel()) {  // from another memory, so it is ours alone
      if (!updated.is_sparse) sum.values = sum.values.view(updated.value.sizes());
      updated.begin_gradient(std::move(sum.values), std::move(sum.rows));
      continue;
    }
    if (!updated.gradient.defined()) updated.begin_gradient(at::empty_like(updated.value));
    flat_elements(updated.gradient, slice).copy_(sum.values);
  }
}

Tensors BucketSums::values() const {
  Tensors message;
  for (const Slice& slice : updated()) {
    const Parameter& updated = parameter(slice);
    if (!updated.is_sparse) {
      message.push_back(flat_elements(updated.value, slice));
      continue;
    }
    const auto rows = rows_.find(slice.parameter);  // whoever updates has the sum
    const bool any = rows != rows_.end();
    append(message, any ? Gradient{updated.value.index_select(0, rows->second), rows->second} : Gradient(), true);
  }
  return message;
}

void BucketSums::put_values(WorkerId from, const Tensors& values) {
  const at::NoGradGuard no_grad;
  std::size_t next = 0;
  for (const Slice& slice : bucket_.blocks.slices(work_.updates[static_cast<std::size_t>(work_.replica_of(from))])) {
    Parameter& updated = parameter(slice);
    const Gradient now = next_of(values, next, updated.is_sparse);
    if (!updated.is_sparse)
      flat_elements(updated.value, slice).copy_(now.values);
    else if (now.values.defined())
      updated.value.index_copy_(0, now.rows, now.values);
  }
}

std::vector<std::vector<Slice>> BucketSums::updated_in_memory() const {
  std::vector<std::vector<Slice>> by_replica;
  for (const std::vector<int>& members : work_.memories) {
    if (std::find(members.begin(), members.end(), replica_) == members.end()) continue;
    for (const int member : members)
      by_replica.push_back(bucket_.blocks.slices(work_.updates[static_cast<std::size_t>(member)]));
  }
  return by_replica;
}

std::int64_t BucketSums::gradient_bytes() const {
  std::size_t bytes = 0;
  for (const std::vector<GroupSum>& sums : own_)
    for (const GroupSum& sum : sums) bytes += sum.sum.bytes();
  return static_cast<std::int64_t>(bytes);
}

void BucketSums::forget() {
  added_up_ = false;
  own_.clear();
  received_.clear();
}

}  // namespace lockstep
