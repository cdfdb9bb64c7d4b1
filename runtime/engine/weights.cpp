// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/weights.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/device/staging.hpp"
#include "runtime/engine/layer_contract.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {

at::Tensor initial_value(const ParameterInfo& parameter, std::uint64_t seed, at::Device device) {
  at::NoGradGuard no_grad;
  // Drawn on the host, so that a device's generator never matters, and in float32, so that every precision starts
  // alike.
  at::Tensor value = at::empty(parameter.sizes, at::kFloat);
  const RandomScope scope(mix_seed(seed, 0, 0, parameter.name));
  switch (parameter.init.kind) {
    case Init::Kind::zeros: value.zero_(); break;
    case Init::Kind::ones: value.fill_(1.0); break;
    case Init::Kind::normal: value.normal_(0.0, parameter.init.scale); break;
    case Init::Kind::uniform: value.uniform_(-parameter.init.scale, parameter.init.scale); break;
  }
  return value.to(device, parameter.dtype);
}

at::Tensor initial_value(const BufferInfo& buffer, at::Device device) {
  return at::full(buffer.sizes, buffer.initial, at::TensorOptions(buffer.dtype).device(device));
}

namespace {

at::Tensor new_parameter(const ParameterInfo& info, const WeightOptions& options) {
  try {
    if (!options.initialise) return at::empty(info.sizes, at::TensorOptions(info.dtype).device(options.device));
    return initial_value(info, options.seed, options.device);
  } catch (Error& error) {
    error.add_place(concat("parameter '", info.name, "' [", join(info.sizes), "]"));
    throw;
  } catch (const std::exception& error) {
    throw LayerError(concat("parameter '", info.name, "' [", join(info.sizes), "]: ", short_message(error)));
  }
}

}  // namespace

Weights::Weights(const ModelGraph& graph, const Partition& partition, const std::vector<StageId>& stages,
                 const WeightOptions& options, MemoryPool& pool)
    : graph_(graph), partition_(partition), options_(options), pool_(pool) {
  const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
  std::map<int, at::Tensor> stored;  // by index in the model
  for (const StageId stage : stages) make(stage, stored);
  std::map<int, Parameter*> first;
  for (auto& [stage, weights] : by_stage_) {
    int layer = partition_.first_layer[stage.value()];
    for (std::vector<Parameter>& held : weights.parameters) {
      for (Parameter& parameter : held) {
        all_.push_back(&parameter);
        parameter.on_new_gradient = [this](const at::Tensor& gradient) {
          pool_.take_over(gradient, MemoryKind::gradients);
        };
        if (!first.emplace(parameter.index, &parameter).second) continue;
        owned_.push_back(&parameter);
        if (parameter.trainable) trained_.push_back(&parameter);
        is_first_holder_.push_back(graph_.parameters[parameter.index].holders.front() == layer);
      }
      ++layer;
    }
  }
  find_shared_holders();
  if (options_.make_updater) updater_ = options_.make_updater(trained_);
}

void Weights::make(StageId stage, std::map<int, at::Tensor>& stored) {
  StageWeights& weights = by_stage_[stage];
  for (int layer = partition_.first_layer[stage.value()]; layer < partition_.first_layer[stage.value() + 1]; ++layer) {
    std::vector<Buffer>& buffers = weights.buffers.emplace_back();
    for (const int index : graph_.held_buffers[layer]) {
      const BufferInfo& info = graph_.buffers[index];
      buffers.push_back({info.local_name, info.name, index, initial_value(info, options_.device), info.is_state});
    }
    std::vector<Parameter>& held = weights.parameters.emplace_back();
    for (const HeldParameter& wanted : graph_.held[layer]) {
      const ParameterInfo& info = graph_.parameters[wanted.index];
      const auto [value, is_new] = stored.try_emplace(wanted.index);
      if (is_new) value->second = new_parameter(info, options_);
      Parameter parameter;
      parameter.local_name = wanted.local_name;
      parameter.name = info.name;
      parameter.index = wanted.index;
      parameter.value = value->second;
      parameter.trainable = info.trainable;
      held.push_back(std::move(parameter));
    }
  }
}

std::vector<const Buffer*> Weights::buffers() const {
  std::vector<const Buffer*> all;
  for (const auto& [stage, weights] : by_stage_)
    for (const std::vector<Buffer>& held : weights.buffers)
      for (const Buffer& buffer : held) all.push_back(&buffer);
  return all;
}

// ---- shared parameters ----

void Weights::find_shared_holders() {
  for (const Shared& shared : partition_.topology.shared) {
    LOCKSTEP_CHECK(shared.parameters.size() == 1, "a bucket of ", shared.parameters.size(), " parameters");
    const int index = shared.parameters.front();
    std::vector<Parameter*>& holders = shared_holders_.emplace_back();
    std::map<int, int> seen;  // a layer may hold the parameter more than once
    for (const int layer : graph_.parameters[index].holders) {
      int skip = seen[layer]++;
      Parameter* holder = nullptr;
      const StageId stage = partition_.stage_of(layer);
      if (const auto here = by_stage_.find(stage); here != by_stage_.end())
        for (Parameter& parameter : here->second.parameters[layer - partition_.first_layer[stage.value()]])
          if (parameter.index == index && skip-- == 0) holder = &parameter;
      holders.push_back(holder);
    }
  }
  shared_received_.resize(shared_holders_.size());
}

Tensors Weights::shared_gradients(std::size_t item) const {
  Tensors gradients;
  for (const Parameter* holder : shared_holders_[item])
    if (holder) gradients.push_back(holder->gradient);
  return gradients;
}

void Weights::put_shared_gradient(std::size_t item, int holder, at::Tensor gradient) {
  shared_received_[item][holder] = std::move(gradient);
}

void Weights::sum_shared(std::size_t item) {
  at::NoGradGuard no_grad;
  at::Tensor sum;
  Parameter* first = nullptr;
  for (std::size_t h = 0; h < shared_holders_[item].size(); ++h) {
    Parameter* holder = shared_holders_[item][h];
    const at::Tensor buffer = holder ? holder->gradient : shared_received_[item].at(static_cast<int>(h));
    // Never in place: received buffers belong to their sender, and ours have been lent to other rows.
    if (buffer.defined())
      sum = sum.defined() ? sum + to_device(buffer, options_.device) : to_device(buffer, options_.device).clone();
    if (holder && !first) first = holder;
    if (holder) holder->gradient.reset();
  }
  first->begin_gradient(std::move(sum));
  shared_received_[item].clear();
}

// ---- norm and update ----

SquaredNorms Weights::squared_norms() const {
  SquaredNorms parts;
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    const Parameter& parameter = *owned_[i];
    if (!parameter.trainable) continue;
    if (!parameter.gradient.defined()) refuse_unused(graph_, parameter.index);
    if (!is_first_holder_[i]) continue;
    parts.parameters.push_back(parameter.index);
    gradients.push_back(parameter.gradient);
  }
  parts.squares = lockstep::squared_norms(gradients, options_.device);
  return parts;
}

namespace {

/// By nothing above 1; also by what is not a number.
void scale(const std::vector<Parameter*>& parameters, const at::Tensor& coefficient) {
  if (!coefficient.device().is_cpu()) {
    const at::Tensor at_most_1 = coefficient.clamp_max(1.0);
    for (Parameter* parameter : parameters) parameter->gradient.mul_(at_most_1);
  } else if (const double factor = coefficient.item<double>(); !(factor >= 1.0)) {
    for (Parameter* parameter : parameters) parameter->gradient.mul_(factor);
  }
}

}  // namespace

void Weights::update(double learning_rate, std::int64_t step, const at::Tensor& coefficient) {
  if (!updater_) return;
  at::NoGradGuard no_grad;
  if (coefficient.defined()) scale(trained_, coefficient);
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  updater_->update(learning_rate, step);
}

/// All that an update changes.
std::vector<at::Tensor> Weights::updated_tensors() {
  std::vector<at::Tensor> live;
  for (const Parameter* parameter : trained_) live.push_back(parameter->value);
  for (UpdaterState& kept : updater_->state()) live.push_back(std::move(kept.tensor));
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
    parameter->gradient.reset();
    parameter->forget_cast();
  }
}

std::int64_t Weights::gradient_bytes() const {
  std::int64_t bytes = 0;
  for (const Parameter* parameter : all_)
    if (parameter->gradient.defined()) bytes += static_cast<std::int64_t>(parameter->gradient.nbytes());
  return bytes;
}

WorkerState Weights::state() {
  WorkerState state;
  std::map<const Parameter*, bool> first;
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    first[owned_[i]] = is_first_holder_[i];
    state.weights.push_back(
        {owned_[i]->name, owned_[i]->value, is_first_holder_[i], /*may_be_infinite=*/!owned_[i]->trainable});
  }
  for (const Buffer* buffer : buffers()) {
    // What layers carry from step to step belongs to the training, not to the model.
    if (buffer->is_state && !updater_) continue;
    auto& kind = buffer->is_state ? state.optimizer : state.weights;
    kind.push_back({buffer->name, buffer->value, /*is_first_holder=*/true, /*may_be_infinite=*/true});
  }
  if (updater_)
    for (const UpdaterState& kept : updater_->state())
      state.optimizer.push_back({kept.parameter->name + "." + kept.name, kept.tensor, first.at(kept.parameter),
                                 /*may_be_infinite=*/false, kept.starts_as_value ? kept.parameter->name : "",
                                 /*restarts=*/!kept.starts_as_value});
  return state;
}

}  // namespace lockstep
