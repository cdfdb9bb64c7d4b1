// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/optimizer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/pattern.hpp"
#include "runtime/checkpoint/store.hpp"
#include "runtime/config/plugin_kind.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

void check_used(const std::vector<std::string>& patterns, const std::vector<std::string>& names, const Section& section,
                const std::string& key) {
  if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return matches(patterns, name); })) return;
  const std::string first = patterns.empty() ? "" : patterns.front();
  throw section.error(key, concat("no parameter matches '", join(patterns), "'", did_you_mean(first, names)));
}

at::Tensor made(const KeptTensor& kept, const at::Tensor& beside) {
  return at::full(kept.sizes, kept.initial, beside.options());
}

}  // namespace

std::vector<KeptTensor> OptimizerChoice::keeps(const Sizes& parameter) const {
  std::vector<KeptTensor> kept = rule->keeps(parameter);
  if (ema_decay) kept.push_back({kAverage, parameter});
  return kept;
}

std::int64_t OptimizerChoice::state_bytes(const Sizes& parameter) const {
  std::int64_t elements = 0;
  for (const KeptTensor& kept : keeps(parameter)) elements += c10::multiply_integers(kept.sizes);
  return elements * static_cast<std::int64_t>(c10::elementSize(dtype));
}

MakeUpdater OptimizerChoice::maker(std::int64_t after) const {
  return [choice = *this, after](const std::vector<Parameter*>& parameters) {
    return std::make_unique<Optimizer>(choice, parameters, after);
  };
}

OptimizerChoice choose_optimizer(const TrainConfig& train, const Table<OptimizerKind>& kinds) {
  OptimizerChoice choice{
      train.optimizer, made_of(kinds, train.optimizer, "train.optimizer.type"), {}, masters_of(train.precision)};
  if (train.ema.given) choice.ema_decay = train.ema.decay;
  return choice;
}

void check_kept(const OptimizerChoice& choice, const std::vector<Sizes>& parameters, const Section& train) {
  for (const Sizes& sizes : parameters) {
    std::set<std::string> names;
    for (const KeptTensor& kept : choice.keeps(sizes))
      if (!names.insert(kept.name).second)
        throw train.error("optimizer",
                          concat("'", choice.config.type_name(), "' keeps two tensors '", kept.name,
                                 "' beside a parameter [", join(sizes), "], and a checkpoint has one of a name",
                                 kept.name == kAverage ? "; leave train.ema out" : ""));
  }
}

void check_patterns(const TrainConfig& config, const std::vector<std::string>& parameter_names, const Section& train) {
  for (const std::string& pattern : config.freeze) check_used({pattern}, parameter_names, train, "freeze");
  for (const OptimizerGroup& group : config.optimizer.groups)
    check_used(group.match, parameter_names, train.section("optimizer"), "groups");
}

Optimizer::Group Optimizer::group_of(const Parameter& parameter) const {
  const OptimizerConfig& config = choice_.config;
  const bool norm_or_bias = parameter.dimensions() <= 1;
  const double decay = norm_or_bias && !config.decay_norms_and_biases ? 0.0 : config.weight_decay;
  for (const OptimizerGroup& group : config.groups)
    if (matches(group.match, parameter.name)) return {group.lr_scale, group.weight_decay.value_or(config.weight_decay)};
  return {1.0, decay};
}

void Optimizer::prepare() {
  if (!members_.empty()) return;
  for (const Parameter* parameter : parameters_) {
    Member& member = members_.emplace_back();
    const at::Tensor& value = parameter->value;
    member.group = group_of(*parameter);
    member.tensor.value = value;
    for (const KeptTensor& kept : choice_.rule->keeps(value.sizes().vec()))
      member.tensor.kept.push_back(made(kept, value));
    if (choice_.ema_decay) member.average = at::zeros_like(value);
  }
}

void Optimizer::update(double learning_rate, std::int64_t step, const std::vector<UpdatePart>& parts) {
  prepare();
  std::map<Group, std::vector<TrainedTensor>> groups;
  for (const UpdatePart& part : parts) {
    const Member& member = members_[part.parameter];
    const bool whole = part.begin == 0 && part.end == member.tensor.value.numel();
    // The rows of a sparse parameter are copied out, and back below.
    const auto of_part = [&](const at::Tensor& tensor) {
      if (part.rows.defined()) return tensor.index_select(0, part.rows);
      return whole ? tensor : elements_of(tensor, part.begin, part.end);
    };
    TrainedTensor& tensor = groups[member.group].emplace_back();
    tensor.value = of_part(member.tensor.value);
    tensor.gradient = part.rows.defined() ? part.gradient : elements_of(part.gradient, part.begin, part.end);
    for (const at::Tensor& kept : member.tensor.kept) tensor.kept.push_back(of_part(kept));
  }
  for (auto& [group, tensors] : groups)
    choice_.rule->update_all(tensors, {learning_rate * group.lr_scale, group.weight_decay, step - after_});
  std::map<Group, std::size_t> next;
  for (const UpdatePart& part : parts) {
    const Member& member = members_[part.parameter];
    const TrainedTensor& tensor = groups.at(member.group)[next[member.group]++];
    if (part.rows.defined()) {
      at::Tensor(member.tensor.value).index_copy_(0, part.rows, tensor.value);
      for (std::size_t k = 0; k < tensor.kept.size(); ++k)
        at::Tensor(member.tensor.kept[k]).index_copy_(0, part.rows, tensor.kept[k]);
    }
    if (member.average.defined())
      average(elements_of(member.average, part.begin, part.end), elements_of(member.tensor.value, part.begin, part.end),
              step);
  }
}

/// As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn: it starts as the weights after the first step.
void Optimizer::average(at::Tensor average, const at::Tensor& value, std::int64_t step) const {
  if (step == 1)
    average.copy_(value);
  else
    average.lerp_(value, 1 - *choice_.ema_decay);
}

std::vector<UpdaterState> Optimizer::state() {
  prepare();
  std::vector<UpdaterState> states;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Parameter* parameter = parameters_[i];
    const std::vector<KeptTensor> kept = choice_.rule->keeps(parameter->value.sizes().vec());
    for (std::size_t k = 0; k < kept.size(); ++k)
      states.push_back({parameter, i, kept[k].name, members_[i].tensor.kept[k]});
    if (members_[i].average.defined())
      states.push_back({parameter, i, kAverage, members_[i].average, /*starts_as_value=*/true});
  }
  return states;
}

}  // namespace lockstep
