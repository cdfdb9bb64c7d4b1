// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/context.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "runtime/base/nearest.hpp"
#include "runtime/layer/low_rank.hpp"

namespace lockstep {

std::size_t Gradient::bytes() const {
  return (values.defined() ? values.nbytes() : 0) + (rows.defined() ? rows.nbytes() : 0);
}

Gradient sum_of(Gradient left, const Gradient& right) {
  if (!left.rows.defined()) {
    left.values.add_(right.values);
    return left;
  }
  const at::Tensor rows = std::get<0>(at::_unique2(at::cat({left.rows, right.rows}), /*sorted=*/true));
  const bool has_all = rows.numel() == left.rows.numel();
  Gradient sum =
      has_all ? std::move(left) : Gradient{at::zeros({rows.numel(), left.values.size(1)}, left.values.options()), rows};
  if (!has_all) sum.values.index_copy_(0, at::searchsorted(rows, left.rows), left.values);
  sum.values.index_add_(0, at::searchsorted(sum.rows, right.rows), right.values);
  return sum;
}

void Parameter::begin_gradient(at::Tensor first, at::Tensor of_rows) {
  gradient = std::move(first);
  rows = std::move(of_rows);
  group_ = at_work ? at_work->group : 0;
  if (on_new_gradient) on_new_gradient(gradient);
}

void Parameter::accumulate(const at::Tensor& micro_batch_gradient) {
  if (micro_batch_gradient.sizes() != value.sizes())
    throw ModelError(concat("the gradient of ", name, " has the sizes [", join(micro_batch_gradient.sizes()),
                            "], the parameter has [", join(value.sizes()), "]"));
  if (is_sparse)
    throw ModelError(concat(name,
                            " is sparse, and got a gradient of all of its rows; a layer reads a sparse table by "
                            "embedding() of operators.hpp alone"));
  at::NoGradGuard no_grad;
  end_group();
  if (gradient.defined()) {
    gradient.add_(micro_batch_gradient);
    return;
  }
  at::Tensor first = micro_batch_gradient.to(value.scalar_type()).contiguous();
  // Later micro-batches are added in place, so nobody else may see this memory: autograd returns the same tensor as the
  // gradient of an input and of a parameter for `x + p`.
  const bool ours_alone = first.storage().use_count() == 1;
  begin_gradient(ours_alone ? std::move(first) : first.clone());
}

/// What was added up before is of another group: it waits for the others.
void Parameter::end_group() {
  if (gradient.defined() && at_work && at_work->group != group_)
    groups_.push(group_, {std::move(gradient), std::move(rows)}, at_work->mine, sum_of);
}

void Parameter::accumulate_rows(at::Tensor of_rows, at::Tensor micro_batch_gradient) {
  at::NoGradGuard no_grad;
  end_group();
  if (!gradient.defined()) return begin_gradient(std::move(micro_batch_gradient), std::move(of_rows));
  const int group = group_;
  Gradient sum = sum_of({std::move(gradient), std::move(rows)}, {std::move(micro_batch_gradient), std::move(of_rows)});
  begin_gradient(std::move(sum.values), std::move(sum.rows));
  group_ = group;
}

std::vector<GroupSum> Parameter::add_up() {
  at::NoGradGuard no_grad;
  if (!at_work) return {};
  if (gradient.defined()) groups_.push(group_, {std::move(gradient), std::move(rows)}, at_work->mine, sum_of);
  gradient.reset();
  rows.reset();
  return groups_.finish(at_work->mine, sum_of);
}

std::int64_t Parameter::gradient_bytes() const {
  std::size_t bytes = Gradient{gradient, rows}.bytes();
  for (const GroupSum& sum : groups_.nodes()) bytes += sum.sum.bytes();
  return static_cast<std::int64_t>(bytes);
}

void Parameter::forget_gradient() {
  gradient.reset();
  rows.reset();
  groups_.clear();
}

const at::Tensor& Parameter::cast(at::ScalarType dtype) {
  if (dtype == value.scalar_type()) return value;
  if (!cast_.defined()) {
    at::NoGradGuard no_grad;
    cast_ = value.to(dtype);
  }
  return cast_;
}

void WeightGradQueue::run() {
  // Each closure holds the tensors it needs: let go of them one by one.
  for (auto& work : work_) {
    work();
    work = nullptr;
  }
  work_.clear();
}

namespace {

/// `held`: what the layer described, parameters or buffers.
template <typename Held>
ModelError not_described(const char* what, const std::string& local_name, const std::vector<Held>& held) {
  std::vector<std::string> names;
  for (const Held& each : held) names.push_back(each.local_name);
  return ModelError(concat("forward() asks for the ", what, " '", local_name,
                           "', which describe() does not declare; it declares ", names.empty() ? "none" : join(names),
                           did_you_mean(local_name, names)));
}

}  // namespace

Parameter& LayerContext::parameter(const std::string& local_name) {
  for (Parameter& parameter : parameters_)
    if (parameter.local_name == local_name) return parameter;
  throw not_described("parameter", local_name, parameters_);
}

const LowRank* LayerContext::adapter(const std::string& part) const {
  if (!adapter_) return nullptr;
  const std::string first = LowRank::first_of(part);
  return std::any_of(parameters_.begin(), parameters_.end(),
                     [&](const Parameter& each) { return each.local_name == first; })
             ? adapter_
             : nullptr;
}

const at::Tensor& LayerContext::buffer(const std::string& local_name) const {
  if (buffers_)
    for (const Buffer& buffer : *buffers_)
      if (buffer.local_name == local_name && !buffer.is_state) return buffer.value;
  throw not_described("buffer", local_name, buffers_ ? *buffers_ : std::vector<Buffer>());
}

const Buffer& LayerContext::state_of(const std::string& local_name) const {
  std::vector<Buffer> states;
  if (buffers_)
    for (const Buffer& buffer : *buffers_) {
      if (!buffer.is_state) continue;
      if (buffer.local_name == local_name) return buffer;
      states.push_back(buffer);
    }
  throw not_described("state", local_name, states);
}

at::Tensor LayerContext::state(const std::string& local_name) const {
  const at::Tensor& all = state_of(local_name).value;
  std::vector<std::int64_t> sizes = all.sizes().vec();
  sizes[0] = rows_;
  return training_ ? all.narrow(0, first_row_, rows_).clone() : at::zeros(sizes, all.options());
}

void LayerContext::set_state(const std::string& local_name, const at::Tensor& value) {
  const Buffer& state = state_of(local_name);
  std::vector<std::int64_t> sizes = state.value.sizes().vec();
  sizes[0] = rows_;
  if (value.sizes() != at::IntArrayRef(sizes))
    throw ModelError(concat("forward() sets the state '", local_name, "' to the sizes [", join(value.sizes()),
                            "], describe() declares [", join(sizes), "] for these rows"));
  if (training_) new_states_[state.index] = value.detach().to(state.value.scalar_type());
}

at::Tensor LayerContext::leaf(const std::string& local_name) {
  Parameter& held = parameter(local_name);
  for (const ParameterLeaf& used : leaves_)
    if (used.parameter == &held) return used.leaf;
  at::Tensor leaf = held.value.detach();
  if (training_ && held.trainable) {
    leaf.requires_grad_(true);
    leaves_.push_back({&held, leaf});
  }
  return leaf;
}

at::Tensor LayerContext::leaf(const std::string& local_name, at::ScalarType dtype) {
  return leaf(local_name).to(dtype);
}

}  // namespace lockstep
