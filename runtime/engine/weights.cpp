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

at::Tensor new_parameter(const ParameterInfo& info, const WeightOptions& options) {
  try {
    if (options.served) {  // of a table there are the rows that were read
      std::vector<std::int64_t> sizes = info.sizes;
      if (info.is_sparse) sizes[0] = 0;
      return at::empty(sizes, at::TensorOptions(info.dtype).device(options.storage()));
    }
    if (options.draws && !options.draws(info.name))
      return at::empty(info.sizes, at::TensorOptions(info.dtype).device(options.storage()));
    return initial_value(info, options.seed, options.storage());
  } catch (Error& error) {
    error.add_place(concat("parameter '", info.name, "' [", join(info.sizes), "]"));
    throw;
  } catch (const std::exception& error) {
    throw LayerError(concat("parameter '", info.name, "' [", join(info.sizes), "]: ", short_message(error)));
  }
}

Weights::Weights(const ModelGraph& graph, const Partition& partition, const std::vector<StageId>& stages,
                 const WeightOptions& options, MemoryPool& pool)
    : graph_(graph),
      partition_(partition),
      options_(options),
      pool_(pool),
      replica_(partition.topology.replica_of(stages.front())) {
  const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
  std::map<int, at::Tensor> stored, copies;
  if (options_.common) stored = options_.common->values;
  for (const StageId stage : stages) make(stage, stored, copies);
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
        Parameter& kept = keep(parameter, stored.at(parameter.index));
        if (!first.emplace(parameter.index, &kept).second) continue;
        owned_.push_back(&kept);
        if (kept.trainable) trained_.push_back(&kept);
        if (graph_.parameters[kept.index].holders.front() == layer) first_holders_.insert(&kept);
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
    updater_ = options_.make_updater(optimized_parameters());
}

/// What gradients are summed for and what is updated.
Parameter& Weights::keep(Parameter& held, const at::Tensor& stored) {
  if (options_.storage() == options_.device) return *(kept_[&held] = &held);
  Parameter& kept = stored_.emplace_back();
  kept.name = held.name;
  kept.index = held.index;
  kept.value = stored;
  kept.trainable = held.trainable;
  kept.is_sparse = held.is_sparse;
  kept.on_new_gradient = held.on_new_gradient;
  all_.push_back(&kept);
  return *(kept_[&held] = &kept);
}

void Weights::fetch_values() {
  const at::NoGradGuard no_grad;
  for (const auto& [held, kept] : kept_)
    if (!held->value.is_same(kept->value)) at::Tensor(held->value).copy_(to_device(kept->value, options_.device));
}

CommonWeights Weights::common() {
  CommonWeights common;
  for (const Parameter* parameter : owned_) common.values.emplace(parameter->index, parameter->value);
  common.updater = updater_;
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  if (updater_) updater_->state();
  return common;
}

/// `stored`, `copies`: values by index in the model, in the storage and on the device; the same where these are.
void Weights::make(StageId stage, std::map<int, at::Tensor>& stored, std::map<int, at::Tensor>& copies) {
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
      const auto [copy, is_first] = copies.try_emplace(wanted.index, value->second);
      if (is_first && options_.storage() != options_.device)
        copy->second = at::empty_like(value->second, at::TensorOptions().device(options_.device));
      Parameter parameter;
      parameter.local_name = wanted.local_name;
      parameter.name = info.name;
      parameter.index = wanted.index;
      parameter.value = copy->second;
      parameter.trainable = info.trainable;
      parameter.is_sparse = info.is_sparse;
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
          if (parameter.index == index && skip-- == 0) holder = kept_.at(&parameter);
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
    if (buffer.defined()) {
      const at::Tensor here = to_device(buffer, options_.storage());
      sum = sum.defined() ? sum + here : here.clone();
    }
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

/// Of a tie.
const Parameter* Weights::holder_of(const Bucket& bucket) const {
  return shared_holders_[static_cast<std::size_t>(bucket.shared)][static_cast<std::size_t>(bucket.holder)];
}

void Weights::find_buckets() {
  const Topology& topology = partition_.topology;
  if (topology.replicas.groups == 1 || options_.served) return;
  for (std::size_t item = 0; item < topology.buckets.size(); ++item) {
    const Bucket& bucket = topology.buckets[item];
    const auto here = by_stage_.find(topology.in_replica(bucket.stage, replica_));
    if (here == by_stage_.end()) continue;
    if (bucket.shared >= 0) bucket_of_tie_.try_emplace(bucket.shared, static_cast<int>(item));
    std::vector<Parameter*> held, kept;
    for (const int index : bucket.parameters)
      for (std::vector<Parameter>& of_layer : here->second.parameters)
        for (Parameter& parameter : of_layer) {
          Parameter* const its = kept_.at(&parameter);
          if (parameter.index != index || (bucket.shared >= 0 && its != holder_of(bucket))) continue;
          held.push_back(&parameter);
          kept.push_back(its);
        }
    LOCKSTEP_CHECK(held.size() == bucket.parameters.size(), "a bucket of ", bucket.parameters.size(),
                   " parameters, of which stage ", here->first, " has ", held.size());
    buckets_.try_emplace(static_cast<int>(item), bucket, work_on(bucket, topology, *options_.wiring), replica_,
                         std::move(held), std::move(kept));
  }
}

void Weights::find_parts() {
  std::vector<Slice> wholes;
  for (std::size_t i = 0; i < trained_.size(); ++i)
    wholes.push_back({static_cast<int>(i), 0, trained_[i]->value.numel()});
  if (partition_.topology.replicas.count == 1 || options_.served) {
    summed_ = updated_ = optimized_ = wholes;
    return;
  }
  const auto take = [&](const BucketSums& bucket, const std::vector<Slice>& slices, std::vector<Slice>& into) {
    for (const Slice& slice : slices) {
      const Parameter* parameter = bucket.parameters()[static_cast<std::size_t>(slice.parameter)];
      const auto at = std::find(trained_.begin(), trained_.end(), parameter);  // not so: another holder of a tie
      if (at != trained_.end()) into.push_back({static_cast<int>(at - trained_.begin()), slice.begin, slice.end});
    }
  };
  for (const auto& [item, bucket] : buckets_) {
    take(bucket, bucket.summed(), summed_);
    take(bucket, bucket.updated(), updated_);
    for (const std::vector<Slice>& slices : bucket.updated_in_memory()) take(bucket, slices, optimized_);
  }
  if (!partition_.topology.replicas.shard_optimizer) optimized_ = wholes;
  for (std::vector<Slice>* slices : {&summed_, &updated_, &optimized_})
    std::sort(slices->begin(), slices->end(), [](const Slice& a, const Slice& b) {
      return std::pair(a.parameter, a.begin) < std::pair(b.parameter, b.begin);
    });
}

std::vector<Parameter*> Weights::optimized_parameters() {
  std::vector<Parameter*> parameters;
  for (const Slice& slice : optimized_) {
    Parameter* whole = trained_[static_cast<std::size_t>(slice.parameter)];
    if (slice.elements() == whole->value.numel()) {
      parameters.push_back(whole);
      continue;
    }
    Parameter& part = parts_.emplace_back();
    part.name = whole->name;
    part.index = whole->index;
    part.value = elements_of(whole->value, slice.begin, slice.end);
    part.part_of_dimensions = whole->value.dim();
    parameters.push_back(&part);
  }
  return parameters;
}

std::vector<UpdatePart> Weights::parts() const {
  std::vector<UpdatePart> parts;
  std::size_t at = 0;
  for (const Slice& slice : updated_) {  // both ascend
    while (optimized_[at].parameter != slice.parameter || optimized_[at].end < slice.end) ++at;
    const Slice& of = optimized_[at];
    const Parameter& parameter = *trained_[static_cast<std::size_t>(slice.parameter)];
    UpdatePart& part = parts.emplace_back(at, slice.begin - of.begin, slice.end - of.begin);
    part.gradient = parameter.is_sparse ? parameter.gradient : elements_of(parameter.gradient, of.begin, of.end);
    part.rows = parameter.rows;
  }
  return parts;
}

}  // namespace lockstep
