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

}  // namespace

void BucketSums::add_up() {
  if (std::exchange(added_up_, true)) return;
  own_.clear();
  for (Parameter* parameter : held_) own_.push_back(parameter->add_up());
  received_.resize(held_.size());
}

Tensors BucketSums::gradients_for(WorkerId row) {
  add_up();
  std::vector<std::int64_t> numbers;  // of each tensor: parameter, group
  Tensors message = {at::Tensor()};
  for (const Slice& slice : bucket_.blocks.slices(work_.sums[static_cast<std::size_t>(work_.replica_of(row))]))
    for (const GroupSum& sum : own_[static_cast<std::size_t>(slice.parameter)]) {
      numbers.insert(numbers.end(), {slice.parameter, sum.first});
      message.push_back(flat_elements(sum.sum.values, slice));
    }
  message.front() = at::tensor(numbers, at::kLong);
  return message;
}

void BucketSums::put_gradients(const Tensors& of_another) {
  add_up();
  const at::Tensor numbers = of_another.at(0).to(at::kCPU);
  const auto* number = numbers.const_data_ptr<std::int64_t>();
  for (std::size_t i = 1; i < of_another.size(); ++i, number += 2)
    received_[static_cast<std::size_t>(number[0])].push_back({static_cast<int>(number[1]), {of_another[i]}});
}

at::Tensor BucketSums::sum_of(const Slice& slice) {
  const auto at = static_cast<std::size_t>(slice.parameter);
  std::vector<TreeSum<Term>::Node> terms;
  const auto add_term = [&](int first, const at::Tensor& elements, bool ours) {
    const at::Tensor there = to_device(elements, parameter(slice).value.device());
    terms.push_back({first, {there, ours || !there.is_same(elements)}});
  };
  for (const GroupSum& sum : own_[at]) add_term(sum.first, flat_elements(sum.sum.values, slice), /*ours=*/true);
  for (const GroupSum& sum : received_[at]) add_term(sum.first, sum.sum.values, /*ours=*/false);
  std::sort(terms.begin(), terms.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  // Nobody else reads these elements of ours, and a + b is b + a.
  const auto add = [](Term left, Term right) {
    if (left.ours) return Term{left.elements.add_(right.elements), true};
    if (right.ours) return Term{right.elements.add_(left.elements), true};
    return Term{left.elements + right.elements, true};
  };
  constexpr TermRange all{0, std::numeric_limits<int>::max()};
  TreeSum<Term> sum;
  for (auto& [group, term] : terms) sum.push(group, std::move(term), all, add);
  std::vector<TreeSum<Term>::Node> whole = sum.finish(all, add);
  LOCKSTEP_CHECK(whole.size() <= 1, whole.size(), " sums of all groups");
  return whole.empty() ? at::Tensor() : whole.front().sum.elements;
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

/// Those of sparse parameters are of one replica alone (assembly.cpp refuses several).
void BucketSums::take_sparse() {
  for (std::size_t i = 0; i < held_.size(); ++i) {
    if (!held_[i]->is_sparse || own_[i].empty()) continue;
    LOCKSTEP_CHECK(own_[i].size() == 1 && kept_[i] == held_[i], own_[i].size(), " sums of a sparse gradient");
    held_[i]->rows = std::move(own_[i].front().sum.rows);
    held_[i]->begin_gradient(std::move(own_[i].front().sum.values));
  }
}

void BucketSums::reduce() {
  const at::NoGradGuard no_grad;
  add_up();
  take_sparse();
  std::vector<Slice> mine = summed();
  std::erase_if(mine, [this](const Slice& slice) { return parameter(slice).is_sparse; });
  std::vector<at::Tensor> sums;
  for (const Slice& slice : mine) sums.push_back(sum_of(slice));
  // Where something is updated here that was summed elsewhere, its sums go where our own gradients are.
  for (const Slice& slice : updated())
    if (!parameter(slice).is_sparse && has_place(slice)) place_of_sum(slice);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!sums[i].defined()) continue;
    const at::Tensor place = place_of_sum(mine[i]);
    if (place.data_ptr() != sums[i].data_ptr()) place.copy_(sums[i]);
  }
  own_.clear();
  received_.clear();
}

Tensors BucketSums::sums_for(WorkerId row) const {
  const TermRange wanted = work_.updates[static_cast<std::size_t>(work_.replica_of(row))];
  Tensors message;
  for (const Slice& slice : bucket_.blocks.slices(both_of(work_.sums[static_cast<std::size_t>(replica_)], wanted))) {
    const at::Tensor& gradient = parameter(slice).gradient;
    message.push_back(gradient.defined() ? flat_elements(gradient, slice) : at::Tensor());
  }
  return message;
}

void BucketSums::put_sums(WorkerId from, const Tensors& sums) {
  const at::NoGradGuard no_grad;
  const TermRange theirs = work_.sums[static_cast<std::size_t>(work_.replica_of(from))];
  std::size_t next = 0;
  for (const Slice& slice : bucket_.blocks.slices(both_of(theirs, work_.updates[static_cast<std::size_t>(replica_)]))) {
    const at::Tensor& sum = sums.at(next++);
    if (!sum.defined()) continue;
    Parameter& updated = parameter(slice);
    if (slice.elements() == updated.value.numel()) {  // it came from another memory, so it is ours alone
      updated.begin_gradient(sum.view(updated.value.sizes()));
      continue;
    }
    if (!updated.gradient.defined()) updated.begin_gradient(at::empty_like(updated.value));
    flat_elements(updated.gradient, slice).copy_(sum);
  }
}

Tensors BucketSums::values() const {
  Tensors message;
  for (const Slice& slice : updated()) message.push_back(flat_elements(parameter(slice).value, slice));
  return message;
}

void BucketSums::put_values(WorkerId from, const Tensors& values) {
  const at::NoGradGuard no_grad;
  std::size_t next = 0;
  for (const Slice& slice : bucket_.blocks.slices(work_.updates[static_cast<std::size_t>(work_.replica_of(from))]))
    flat_elements(parameter(slice).value, slice).copy_(values.at(next++));
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
