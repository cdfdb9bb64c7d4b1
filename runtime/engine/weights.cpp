// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/weights.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
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
    : graph_(graph),
      partition_(partition),
      options_(options),
      pool_(pool),
      replica_(partition.topology.replica_of(stages.front())) {
  const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
  std::map<int, at::Tensor> stored;  // by index in the model
  if (options_.common) stored = options_.common->values;
  for (const StageId stage : stages) make(stage, stored);
  std::map<int, Parameter*> first;
  for (auto& [stage, weights] : by_stage_) {
    int layer = partition_.layers_of(stage).first;
    weights.at_work.mine = partition_.topology.replicas.groups_of(replica_);
    for (std::vector<Parameter>& held : weights.parameters) {
      for (Parameter& parameter : held) {
        all_.push_back(&parameter);
        parameter.at_work = &weights.at_work;
        parameter.on_new_gradient = [this](const at::Tensor& gradient) {
          pool_.take_over(gradient, MemoryKind::gradients);
        };
        if (!first.emplace(parameter.index, &parameter).second) continue;
        owned_.push_back(&parameter);
        if (parameter.trainable) trained_.push_back(&parameter);
        if (graph_.parameters[parameter.index].holders.front() == layer) first_holders_.insert(&parameter);
      }
      ++layer;
    }
  }
  find_shared_holders();
  find_buckets();
  find_parts();
  if (options_.common)
    updater_ = options_.common->updater;
  else if (options_.make_updater)
    updater_ = options_.make_updater(trained_);
}

CommonWeights Weights::common() {
  CommonWeights common;
  for (const Parameter* parameter : owned_) common.values.emplace(parameter->index, parameter->value);
  common.updater = updater_;
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  if (updater_) updater_->state();
  return common;
}

void Weights::make(StageId stage, std::map<int, at::Tensor>& stored) {
  StageWeights& weights = by_stage_[stage];
  const LayerRange layers = partition_.layers_of(stage);
  for (int layer = layers.first; layer < layers.end; ++layer) {
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
  const std::size_t of_one = partition_.topology.shared.size() / partition_.topology.replicas.count;
  for (std::size_t item = 0; item < of_one; ++item) {
    const Shared& shared = partition_.topology.shared[item];
    LOCKSTEP_CHECK(shared.parameters.size() == 1, "a bucket of ", shared.parameters.size(), " parameters");
    const int index = shared.parameters.front();
    std::vector<Parameter*>& holders = shared_holders_.emplace_back();
    std::map<int, int> seen;  // a layer may hold the parameter more than once
    for (const int layer : graph_.parameters[index].holders) {
      int skip = seen[layer]++;
      Parameter* holder = nullptr;
      const StageId stage = partition_.topology.in_replica(partition_.stage_of(layer), replica_);
      if (const auto here = by_stage_.find(stage); here != by_stage_.end())
        for (Parameter& parameter : here->second.parameters[layer - partition_.layers_of(stage).first])
          if (parameter.index == index && skip-- == 0) holder = &parameter;
      holders.push_back(holder);
    }
  }
  shared_received_.resize(shared_holders_.size());
}

/// What a replica has of the sum of a holder's gradients over all replicas.
at::Tensor Weights::shared_elements(int tie, const Parameter& holder) const {
  if (partition_.topology.replicas.count == 1) return holder.gradient;
  const std::vector<Slice> slice = buckets_.at(bucket_of_tie_.at(tie)).summed();
  if (slice.empty() || !holder.gradient.defined()) return {};
  return elements_of(holder.gradient, slice[0].begin, slice[0].end);
}

Tensors Weights::shared_gradients(int item) const {
  const int tie = tie_of(item);
  Tensors gradients;
  for (const Parameter* holder : shared_holders_[static_cast<std::size_t>(tie)])
    if (holder) gradients.push_back(shared_elements(tie, *holder));
  return gradients;
}

void Weights::put_shared_gradient(int item, int holder, at::Tensor gradient) {
  shared_received_[static_cast<std::size_t>(tie_of(item))][holder] = std::move(gradient);
}

void Weights::sum_shared(int item) {
  at::NoGradGuard no_grad;
  const int tie = tie_of(item);
  const std::vector<Parameter*>& holders = shared_holders_[static_cast<std::size_t>(tie)];
  std::map<int, at::Tensor>& received = shared_received_[static_cast<std::size_t>(tie)];
  at::Tensor sum;
  Parameter* first = nullptr;
  for (std::size_t h = 0; h < holders.size(); ++h) {
    Parameter* holder = holders[h];
    const at::Tensor buffer = holder ? shared_elements(tie, *holder) : received.at(static_cast<int>(h));
    // Never in place: received buffers belong to their sender, and ours have been lent to other rows.
    if (buffer.defined())
      sum = sum.defined() ? sum + to_device(buffer, options_.device) : to_device(buffer, options_.device).clone();
    if (holder && !first) first = holder;
    if (holder) holder->gradient.reset();
  }
  received.clear();
  if (sum.defined() && sum.numel() < first->value.numel()) {  // a share: where all of it would be
    first->begin_gradient(at::empty_like(first->value));
    const Slice slice = buckets_.at(bucket_of_tie_.at(tie)).summed().at(0);
    elements_of(first->gradient, slice.begin, slice.end).copy_(sum);
  } else {
    first->begin_gradient(std::move(sum));
  }
}

// ---- groups and replicas ----

void CommonPlace::put(CommonWeights weights) {
  const std::lock_guard lock(mutex_);
  weights_ = std::move(weights);
  changed_.notify_all();
}

const CommonWeights& CommonPlace::wait(const StopFlag& stop) {
  constexpr std::chrono::milliseconds look{20};
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, look, [this] { return weights_.has_value(); }))
    if (stop.raised()) throw JobStopped();
  return *weights_;
}

void Weights::find_buckets() {
  const Topology& topology = partition_.topology;
  if (topology.replicas.groups == 1) return;
  for (std::size_t item = 0; item < topology.buckets.size(); ++item) {
    const Bucket& bucket = topology.buckets[item];
    const auto here = by_stage_.find(topology.in_replica(bucket.stage, replica_));
    if (here == by_stage_.end()) continue;
    std::vector<Parameter*> parameters;
    if (bucket.shared >= 0) {
      parameters.push_back(
          shared_holders_[static_cast<std::size_t>(bucket.shared)][static_cast<std::size_t>(bucket.holder)]);
      bucket_of_tie_.try_emplace(bucket.shared, static_cast<int>(item));
    }
    for (const int index : bucket.parameters)
      for (std::vector<Parameter>& held : here->second.parameters)
        for (Parameter& parameter : held)
          if (bucket.shared < 0 && parameter.index == index) parameters.push_back(&parameter);
    LOCKSTEP_CHECK(parameters.size() == bucket.parameters.size(), "a bucket of ", bucket.parameters.size(),
                   " parameters, of which stage ", here->first, " has ", parameters.size());
    buckets_.try_emplace(static_cast<int>(item), bucket, work_on(bucket, topology, *options_.wiring), replica_,
                         std::move(parameters));
  }
}

void Weights::find_parts() {
  const auto take = [&](Parameter* parameter, std::int64_t begin, std::int64_t end, std::vector<Slice>& into) {
    const auto at = std::find(trained_.begin(), trained_.end(), parameter);
    if (at != trained_.end()) into.push_back({static_cast<int>(at - trained_.begin()), begin, end});
  };
  if (partition_.topology.replicas.count == 1) {
    for (Parameter* parameter : trained_) take(parameter, 0, parameter->value.numel(), summed_);
    updated_ = summed_;
    return;
  }
  for (const auto& [item, bucket] : buckets_) {
    const auto take_all = [&, &of = bucket.parameters()](const std::vector<Slice>& slices, std::vector<Slice>& into) {
      for (const Slice& slice : slices)
        take(of[static_cast<std::size_t>(slice.parameter)], slice.begin, slice.end, into);
    };
    take_all(bucket.summed(), summed_);
    take_all(bucket.updated(), updated_);
  }
  for (std::vector<Slice>* slices : {&summed_, &updated_})
    std::sort(slices->begin(), slices->end(), [](const Slice& a, const Slice& b) { return a.parameter < b.parameter; });
}

std::vector<UpdatePart> Weights::parts() const {
  std::vector<UpdatePart> parts;
  for (const Slice& slice : updated_) {
    const auto at = static_cast<std::size_t>(slice.parameter);
    parts.push_back({at, slice.begin, slice.end, trained_[at]->gradient});
  }
  return parts;
}

// ---- norm and update ----

SquaredNorms Weights::squared_norms() const {
  SquaredNorms norms;
  std::vector<at::Tensor> gradients;
  for (const Slice& slice : summed_) {
    const auto at = static_cast<std::size_t>(slice.parameter);
    const Parameter& parameter = *trained_[at];
    if (!parameter.gradient.defined()) refuse_unused(graph_, parameter.index);
    if (!first_holders_.contains(&parameter)) continue;
    if (slice.elements() == parameter.gradient.numel()) {
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
  norms.squares = lockstep::squared_norms(gradients, options_.device);
  return norms;
}

namespace {

/// By nothing above 1; also by what is not a number.
void scale(const std::vector<UpdatePart>& parts, const at::Tensor& coefficient) {
  const auto each = [&](const auto& factor) {
    for (const UpdatePart& part : parts) elements_of(part.gradient, part.begin, part.end).mul_(factor);
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
  std::map<const at::TensorImpl*, const Slice*> part_of;  // by the parameter's value
  std::vector<at::Tensor> live;
  for (const Slice& slice : updated_) {
    const at::Tensor& value = trained_[static_cast<std::size_t>(slice.parameter)]->value;
    part_of[value.unsafeGetTensorImpl()] = &slice;
    live.push_back(elements_of(value, slice.begin, slice.end));
  }
  for (UpdaterState& kept : updater_->state()) {
    const auto part = part_of.find(kept.parameter->value.unsafeGetTensorImpl());
    if (part == part_of.end()) continue;
    const Slice& slice = *part->second;
    const bool whole = slice.elements() == kept.parameter->value.numel();
    live.push_back(whole ? std::move(kept.tensor) : elements_of(kept.tensor, slice.begin, slice.end));
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
  for (std::size_t i = 0; i < owned_.size() && !is_common; ++i)
    state.weights.push_back({owned_[i]->name, owned_[i]->value, saves && first_holders_.contains(owned_[i]),
                             /*may_be_infinite=*/!owned_[i]->trainable});
  for (const Buffer* buffer : buffers()) {
    // What layers carry from step to step belongs to the training, not to the model.
    if (buffer->is_state && !updater_) continue;
    auto& kind = buffer->is_state ? state.optimizer : state.weights;
    kind.push_back({buffer->name, buffer->value, saves, /*may_be_infinite=*/true});
  }
  if (updater_ && !is_common)
    for (const UpdaterState& kept : updater_->state())
      state.optimizer.push_back({kept.parameter->name + "." + kept.name, kept.tensor,
                                 saves && first_holders_.contains(kept.parameter), /*may_be_infinite=*/false,
                                 kept.starts_as_value ? kept.parameter->name : "",
                                 /*restarts=*/!kept.starts_as_value});
  return state;
}

}  // namespace lockstep
