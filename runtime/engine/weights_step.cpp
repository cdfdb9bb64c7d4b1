// SPDX-License-Identifier: Apache-2.0
//
// Weights at the end of a step: norm, update, what a checkpoint has of them.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "runtime/engine/layer_contract.hpp"
#include "runtime/engine/weights.hpp"

namespace lockstep {

SquaredNorms Weights::squared_norms() const {
  SquaredNorms norms;
  std::vector<at::Tensor> gradients;
  for (const Slice& slice : summed_) {
    const auto at = static_cast<std::size_t>(slice.parameter);
    const Parameter& parameter = *trained_[at];
    if (!parameter.gradient.defined()) refuse_unused(graph_, parameter.index);
    if (!first_holders_.contains(&parameter)) continue;
    if (parameter.is_sparse || slice.elements() == parameter.gradient.numel()) {
      norms.parameters.push_back(parameter.index);
      norms.blocks.push_back(SquaredNorms::kWhole);
      gradients.push_back(parameter.gradient);
      continue;
    }
    for (std::int64_t begin = slice.begin; begin < slice.end; begin += kNormBlock) {
      norms.parameters.push_back(parameter.index);
      norms.blocks.push_back(static_cast<int>(begin / kNormBlock));
      gradients.push_back(elements_of(parameter.gradient, begin, std::min(begin + kNormBlock, slice.end)));
    }
  }
  norms.squares = lockstep::squared_norms(gradients, options_.storage());
  return norms;
}

namespace {

/// By nothing above 1; also by what is not a number.
void scale(const std::vector<UpdatePart>& parts, const at::Tensor& coefficient) {
  const auto each = [&](const auto& factor) {
    for (const UpdatePart& part : parts)
      (part.rows.defined() ? part.gradient : elements_of(part.gradient, part.begin, part.end)).mul_(factor);
  };
  if (!coefficient.device().is_cpu())
    each(coefficient.clamp_max(1.0));
  else if (const double factor = coefficient.item<double>(); !(factor >= 1.0))
    each(factor);
}

}  // namespace

void Weights::update(double learning_rate, std::int64_t step, const at::Tensor& coefficient) {
  if (!updater_) return;
  at::NoGradGuard no_grad;
  const std::vector<UpdatePart> parts = this->parts();
  if (coefficient.defined()) scale(parts, coefficient);
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  updater_->update(learning_rate, step, parts);
}

/// All that an update changes.
std::vector<at::Tensor> Weights::updated_tensors() {
  std::map<std::size_t, std::vector<UpdatePart>> parts_of;  // by position in optimized_
  std::vector<at::Tensor> live;
  for (UpdatePart& part : parts()) parts_of[part.parameter].push_back(std::move(part));
  for (const Slice& slice : updated_)
    live.push_back(elements_of(trained_[static_cast<std::size_t>(slice.parameter)]->value, slice.begin, slice.end));
  for (const UpdaterState& kept : updater_->state())
    for (const UpdatePart& part : parts_of[kept.position]) {
      const bool whole = part.begin == 0 && part.end == kept.parameter->value.numel();
      live.push_back(whole ? kept.tensor : elements_of(kept.tensor, part.begin, part.end));
    }
  return live;
}

void Weights::update_for_now(double learning_rate, std::int64_t step) {
  if (!updater_) return;
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> live = updated_tensors();
  snapshot_.resize(live.size());
  for (std::size_t i = 0; i < live.size(); ++i) {
    if (!snapshot_[i].defined()) snapshot_[i] = at::empty_like(live[i]);
    snapshot_[i].copy_(live[i]);
  }
  update(learning_rate, step);
}

void Weights::amend(double learning_rate, std::int64_t step, const at::Tensor& coefficient) {
  if (!updater_ || coefficient.item<double>() >= 1.0) return;
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> live = updated_tensors();
  for (std::size_t i = 0; i < live.size(); ++i) live[i].copy_(snapshot_[i]);
  update(learning_rate, step, coefficient);
}

void Weights::forget_gradients() {
  for (Parameter* parameter : all_) {
    parameter->forget_gradient();
    parameter->forget_cast();
  }
  for (auto& [item, bucket] : buckets_) bucket.forget();
}

std::int64_t Weights::gradient_bytes() const {
  std::int64_t bytes = 0;
  for (const Parameter* parameter : all_) bytes += parameter->gradient_bytes();
  for (const auto& [item, bucket] : buckets_) bytes += bucket.gradient_bytes();
  return bytes;
}

WorkerState Weights::state() {
  WorkerState state;
  const bool saves = replica_ == 0, is_common = options_.common != nullptr;
  for (std::size_t i = 0; i < owned_.size() && !is_common; ++i) {
    state.weights.push_back({owned_[i]->name, owned_[i]->value, saves && first_holders_.contains(owned_[i]),
                             /*may_be_infinite=*/!owned_[i]->trainable});
    state.weights.back().is_base = graph_.parameters[static_cast<std::size_t>(owned_[i]->index)].is_base;
  }
  for (const Buffer* buffer : buffers()) {
    // What layers carry from step to step belongs to the training, not to the model.
    if (buffer->is_state && !updater_) continue;
    auto& kind = buffer->is_state ? state.optimizer : state.weights;
    kind.push_back({buffer->name, buffer->value, saves, /*may_be_infinite=*/true});
  }
  if (!updater_ || is_common) return state;
  const bool shards = partition_.topology.replicas.shard_optimizer;
  for (const UpdaterState& kept : updater_->state()) {
    const Slice& slice = optimized_[kept.position];
    const Parameter* parameter = trained_[static_cast<std::size_t>(slice.parameter)];
    HeldTensor& held = state.optimizer.emplace_back();
    held.name = kept.parameter->name + "." + kept.name;
    held.tensor = kept.tensor;
    held.is_first_holder = (saves || shards) && first_holders_.contains(parameter);
    if (slice.elements() < parameter->value.numel()) held.part = ElementRange{slice.begin, slice.end};
    held.starts_as = kept.starts_as_value ? kept.parameter->name : "";
    held.restarts = !kept.starts_as_value;
  }
  return state;
}

}  // namespace lockstep
