// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/served_weights.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/engine/layer_contract.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

std::int64_t row_elements(const ParameterInfo& table) {
  return std::max<std::int64_t>(table.elements() / std::max<std::int64_t>(table.sizes.at(0), 1), 1);
}

}  // namespace

std::vector<std::vector<Slice>> parts_of_servers(const ModelGraph& graph, int servers, bool whole_tables) {
  std::vector<Divided> divided;
  for (const ParameterInfo& parameter : graph.parameters) {
    const bool between_rows = parameter.is_sparse && !whole_tables;
    const std::int64_t row = between_rows ? row_elements(parameter) : 0;
    divided.emplace_back(parameter.elements(), between_rows ? std::max<std::int64_t>(kNormBlock / row, 1) * row
                                                            : std::max<std::int64_t>(parameter.elements(), 1));
  }
  const Blocks blocks(std::move(divided));
  std::vector<std::vector<Slice>> parts;
  for (const TermRange& share : blocks.divided(servers)) parts.push_back(blocks.slices(share));
  return parts;
}

ElementRange rows_of(const ParameterInfo& table, const Slice& part) {
  const std::int64_t row = row_elements(table);
  return {part.begin / row, part.end / row};
}

ServedWeights::ServedWeights(const ModelGraph& graph, std::vector<Slice> parts, const Options& options,
                             MemoryPool& pool)
    : graph_(graph), pool_(pool), has_buffers_(options.has_buffers) {
  const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
  WeightOptions drawn{options.seed, at::kCPU, options.draws};
  std::vector<Parameter*> trained;
  int tables = 0;
  for (const Slice& slice : parts) {
    const ParameterInfo& info = graph.parameters[static_cast<std::size_t>(slice.parameter)];
    Part& part = parts_.emplace_back();
    part.slice = slice;
    part.parameter.name = info.name;
    part.parameter.index = slice.parameter;
    part.parameter.trainable = info.trainable;
    part.parameter.is_sparse = info.is_sparse;
    part.parameter.value = new_parameter(info, drawn);
    if (info.is_sparse) part.table = tables++;
    if (slice.elements() < info.elements()) {
      part.range = ElementRange{slice.begin, slice.end};
      const ElementRange rows = rows_of(info, slice);
      part.first_row = rows.begin;
      part.parameter.value = part.parameter.value.narrow(0, rows.begin, rows.count()).clone();
    }
    if (!info.trainable) continue;
    trained_.push_back(parts_.size() - 1);
    trained.push_back(&part.parameter);
  }
  for (const std::vector<int>& held : graph.held_buffers) {
    std::vector<Buffer>& of_layer = buffers_.emplace_back();
    for (const int index : held) {
      const BufferInfo& info = graph.buffers[static_cast<std::size_t>(index)];
      if (has_buffers_) of_layer.push_back({info.local_name, info.name, index, initial_value(info, at::kCPU)});
    }
  }
  if (options.make_updater) updater_ = options.make_updater(trained);
}

Tensors ServedWeights::values(const Tensors& rows, bool all) const {
  const at::NoGradGuard no_grad;
  Tensors message;
  for (const Part& part : parts_) {
    if (part.table >= 0)
      message.push_back(
          part.parameter.value.index_select(0, rows.at(static_cast<std::size_t>(part.table)) - part.first_row));
    else if (part.parameter.trainable || all)
      message.push_back(part.parameter.value.clone());
  }
  for (const std::vector<Buffer>& of_layer : buffers_)
    for (const Buffer& buffer : of_layer) message.push_back(buffer.value.clone());
  return message;
}

std::vector<ServedWeights::Numbered> ServedWeights::gradients_of(const Share& share) const {
  const at::Tensor& numbers = share.gradients.at(0);
  const auto* number = numbers.const_data_ptr<std::int64_t>();
  std::vector<Numbered> gradients;
  std::size_t next = 1;
  for (std::int64_t i = 0; i < numbers.size(0); ++i, number += 3) {
    const auto at = static_cast<std::size_t>(number[0]);
    const Part& part = parts_.at(at);
    Gradient gradient{share.gradients.at(next++)};
    if (part.table >= 0) {
      gradient.rows = share.gradients.at(next++);
      if (!gradient.rows.defined()) gradient.rows = share.read.at(static_cast<std::size_t>(part.table));
      if (part.first_row > 0) gradient.rows = gradient.rows - part.first_row;
    } else {
      gradient.values = gradient.values.view(part.parameter.value.sizes());
    }
    gradients.push_back({at, static_cast<int>(number[1]), static_cast<int>(number[2]), std::move(gradient)});
  }
  return gradients;
}

void ServedWeights::update(double learning_rate, std::int64_t step, const Share& share) {
  const at::NoGradGuard no_grad;
  std::vector<Gradient> gradients(parts_.size());
  for (Numbered& each : gradients_of(share)) gradients[each.part] = std::move(each.gradient);
  apply(learning_rate, step, gradients);
}

void ServedWeights::apply(double learning_rate, std::int64_t step, const std::vector<Gradient>& gradients) {
  if (!updater_) return;
  std::vector<UpdatePart> updates;
  for (std::size_t i = 0; i < trained_.size(); ++i) {
    const Gradient& gradient = gradients[trained_[i]];
    if (!gradient.values.defined() || (gradient.rows.defined() && gradient.rows.numel() == 0)) continue;
    updates.push_back({i, 0, parts_[trained_[i]].parameter.value.numel(), gradient.values, gradient.rows});
  }
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  updater_->update(learning_rate, step, updates);
}

/// Of each holder over all groups of all shares; then over the holders, in their order.
void ServedWeights::add_up() {
  if (!sums_.empty()) return;
  std::map<std::pair<std::size_t, int>, std::vector<Numbered>> terms;  // by part and holder
  for (const auto& [number, share] : shares_)
    for (Numbered& each : gradients_of(share)) terms[{each.part, each.holder}].push_back(std::move(each));
  sums_.resize(parts_.size());
  constexpr TermRange all{0, std::numeric_limits<int>::max()};
  for (auto& [at, numbered] : terms) {
    std::sort(numbered.begin(), numbered.end(), [](const Numbered& a, const Numbered& b) { return a.group < b.group; });
    TreeSum<Gradient> sum;
    for (Numbered& each : numbered) sum.push(each.group, std::move(each.gradient), all, sum_of);
    Gradient of_holder = std::move(sum.finish(all, sum_of).at(0).sum);
    Gradient& of_all = sums_[at.first];
    of_all = of_all.values.defined() ? sum_of(std::move(of_all), of_holder) : std::move(of_holder);
  }
}

NormParts ServedWeights::squares() {
  const at::NoGradGuard no_grad;
  add_up();
  NormParts parts;
  for (const std::size_t at : trained_) {
    const Gradient& gradient = sums_[at];
    const Part& part = parts_[at];
    if (!gradient.values.defined()) {
      if (part.range) continue;  // nobody has used a row of these
      refuse_unused(graph_, part.slice.parameter);
    }
    parts.parameters.push_back(part.slice.parameter);
    parts.blocks.push_back(part.range ? static_cast<int>(part.slice.begin / kNormBlock) : SquaredNorms::kWhole);
    parts.squares.push_back(squared_norm(gradient.values));
  }
  return parts;
}

void ServedWeights::settle(double learning_rate, std::int64_t step, double coefficient) {
  const at::NoGradGuard no_grad;
  add_up();
  if (!(coefficient >= 1.0))
    for (Gradient& gradient : sums_)
      if (gradient.values.defined()) gradient.values.mul_(coefficient);
  apply(learning_rate, step, sums_);
  if (has_buffers_) end_step();
  sums_.clear();
  shares_.clear();
}

void ServedWeights::hash_sums(std::int64_t step, std::vector<ParameterHash>& hashes) {
  add_up();
  for (const std::size_t at : trained_)
    if (!parts_[at].range) hash_gradient(step, parts_[at].slice.parameter, sums_[at], hashes);
}

void ServedWeights::hash_values(std::int64_t step, std::vector<ParameterHash>& hashes) const {
  for (const std::size_t at : trained_)
    if (const Part& part = parts_[at]; !part.range)
      hashes.push_back({step, part.slice.parameter, Hashed::value, 0, hash_of(part.parameter.value)});
  for (const std::vector<Buffer>& of_layer : buffers_)
    for (const Buffer& buffer : of_layer)
      hashes.push_back({step, buffer.index, Hashed::buffer, 0, hash_of(buffer.value)});
}

void ServedWeights::end_step() {
  Collected collected(static_cast<int>(buffers_.size()), at::kCPU);
  for (const auto& [number, share] : shares_) {
    const std::int64_t gradients = share.gradients.at(0).size(0);
    std::int64_t next = 1;
    for (std::int64_t i = 0; i < gradients; ++i)
      next += parts_[static_cast<std::size_t>(share.gradients[0][i][0].item<std::int64_t>())].table >= 0 ? 2 : 1;
    collected.put({share.gradients.begin() + next, share.gradients.end()});
  }
  for (std::size_t layer = 0; layer < buffers_.size(); ++layer) {
    const std::vector<Tensors> in_order = collected.take_statistics(static_cast<int>(layer));
    if (!in_order.empty()) graph_.layers[layer].layer->end_step(buffers_[layer], in_order);
  }
}

WorkerState ServedWeights::state() {
  WorkerState state;
  for (const Part& part : parts_) {
    const ParameterInfo& info = graph_.parameters[static_cast<std::size_t>(part.slice.parameter)];
    HeldTensor& held = state.weights.emplace_back();
    held.name = info.name;
    held.tensor = part.parameter.value;
    held.may_be_infinite = !info.trainable;
    held.part = part.range;
    held.is_base = info.is_base;
  }
  for (const std::vector<Buffer>& of_layer : buffers_)
    for (const Buffer& buffer : of_layer)
      state.weights.push_back({buffer.name, buffer.value, true, /*may_be_infinite=*/true});
  if (!updater_) return state;
  for (const UpdaterState& kept : updater_->state()) {
    const Part& part = parts_[trained_[kept.position]];
    HeldTensor& held = state.optimizer.emplace_back();
    held.name = kept.parameter->name + "." + kept.name;
    held.tensor = kept.tensor;
    held.part = part.range;
    if (part.range && kept.tensor.numel() < kept.parameter->value.numel())  // a number of each row
      held.part = rows_of(graph_.parameters[static_cast<std::size_t>(part.slice.parameter)], part.slice);
    held.starts_as = kept.starts_as_value ? kept.parameter->name : "";
    held.restarts = !kept.starts_as_value;
  }
  return state;
}

void ServedWeights::add_to(JobOutcome& outcome) const {
  for (const Part& part : parts_)
    outcome.add({part.slice.parameter, 0, part.parameter.value, part.range}, part.parameter.name,
                part.parameter.trainable);
  for (const std::vector<Buffer>& of_layer : buffers_)
    for (const Buffer& buffer : of_layer)
      outcome.buffers.push_back({buffer.index, hash_of(buffer.value), buffer.value});
}

}  // namespace lockstep
