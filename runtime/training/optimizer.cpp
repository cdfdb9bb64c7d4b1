// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/optimizer.hpp"

#include <ATen/ATen.h>
#include <fnmatch.h>

#include <algorithm>

#include "runtime/config/section.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

void check_used(const std::vector<std::string>& patterns, const std::vector<std::string>& names, const Section& section,
                const std::string& key) {
  if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return matches(patterns, name); })) return;
  const std::string first = patterns.empty() ? "" : patterns.front();
  throw section.error(key, concat("no parameter matches '", join(patterns), "'", did_you_mean(first, names)));
}

/// The tensors that it keeps beside each parameter, as PyTorch calls them; of the parameter's sizes and dtype.
std::vector<const char*> state_names(const OptimizerConfig& config) {
  if (config.type != OptimizerType::sgd) return {"exp_avg", "exp_avg_sq"};
  return config.momentum > 0 ? std::vector{"momentum_buffer"} : std::vector<const char*>{};
}

}  // namespace

std::string summary_of(OptimizerType type) {
  switch (type) {
    case OptimizerType::sgd: return "stochastic gradient descent, with momentum, Nesterov's too";
    case OptimizerType::adam: return "Adam (Kingma, Ba, 2015); weight decay goes through its moments";
    case OptimizerType::adamw: return "AdamW (Loshchilov, Hutter, 2019); weight decay beside them";
  }
  return "";
}

double state_bytes_per_element(const TrainConfig& config) {
  return static_cast<double>(state_names(config.optimizer).size()) * master_bytes(config.precision);
}

void check_patterns(const TrainConfig& config, const std::vector<std::string>& parameter_names, const Section& train) {
  for (const std::string& pattern : config.freeze) check_used({pattern}, parameter_names, train, "freeze");
  for (const OptimizerGroup& group : config.optimizer.groups)
    check_used(group.match, parameter_names, train.section("optimizer"), "groups");
}

Optimizer::Group Optimizer::group_of(const Parameter& parameter) const {
  const bool norm_or_bias = parameter.value.dim() <= 1;
  const double decay = norm_or_bias && !config_.decay_norms_and_biases ? 0.0 : config_.weight_decay;
  for (const OptimizerGroup& group : config_.groups)
    if (matches(group.match, parameter.name))
      return {group.lr_scale, group.weight_decay.value_or(config_.weight_decay)};
  return {1.0, decay};
}

MakeUpdater Optimizer::maker(const OptimizerConfig& config) {
  return
      [config](const std::vector<Parameter*>& parameters) { return std::make_unique<Optimizer>(config, parameters); };
}

void Optimizer::prepare() {
  if (!groups_.empty()) return;
  const std::size_t kept = state_names(config_).size();
  for (Parameter* parameter : parameters_) {
    State& state = groups_[group_of(*parameter)];
    state.parameters.push_back(parameter);
    state.values.push_back(parameter->value);
    if (kept > 0) state.first.push_back(at::zeros_like(parameter->value));
    if (kept < 2) continue;
    state.second.push_back(at::zeros_like(parameter->value));
    state.steps.push_back(at::zeros({}, parameter->value.options()));
  }
}

void Optimizer::update(double learning_rate, std::int64_t step) {
  prepare();
  for (auto& [group, state] : groups_) update_group(group, state, learning_rate * group.lr_scale, step);
}

std::vector<UpdaterState> Optimizer::state() {
  prepare();
  const std::vector<const char*> names = state_names(config_);
  std::vector<UpdaterState> states;
  for (const auto& [group, state] : groups_)
    for (std::size_t i = 0; i < state.parameters.size(); ++i) {
      if (!state.first.empty()) states.push_back({state.parameters[i], names[0], state.first[i]});
      if (!state.second.empty()) states.push_back({state.parameters[i], names[1], state.second[i]});
    }
  return states;
}

void Optimizer::update_group(const Group& group, State& state, double learning_rate, std::int64_t step) {
  std::vector<at::Tensor> gradients;
  for (const Parameter* parameter : state.parameters) gradients.push_back(parameter->gradient);
  if (config_.type == OptimizerType::sgd) {
    at::_fused_sgd_(state.values, gradients, state.first, group.weight_decay, config_.momentum, learning_rate,
                    config_.dampening, config_.nesterov, /*maximize=*/false, /*is_first_step=*/step == 1);
    return;
  }
  for (at::Tensor& count : state.steps) count.fill_(static_cast<double>(step));
  const auto fused = [&](auto kernel) {
    kernel(state.values, gradients, state.first, state.second, at::TensorList{}, state.steps, learning_rate,
           config_.beta1, config_.beta2, group.weight_decay, config_.eps, /*amsgrad=*/false, /*maximize=*/false,
           std::nullopt, std::nullopt);
  };
  using Kernel = void (*)(at::TensorList, at::TensorList, at::TensorList, at::TensorList, at::TensorList,
                          at::TensorList, double, double, double, double, double, bool, bool,
                          const std::optional<at::Tensor>&, const std::optional<at::Tensor>&);
  fused(config_.type == OptimizerType::adam ? static_cast<Kernel>(at::_fused_adam_)
                                            : static_cast<Kernel>(at::_fused_adamw_));
}

}  // namespace lockstep
