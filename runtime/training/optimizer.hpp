// SPDX-License-Identifier: Apache-2.0
//
// The optimizer of a job: a rule (update_rule.hpp), groups of parameters, and the average of weights (train.ema), over
// one worker's parameters.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "runtime/engine/updater.hpp"
#include "runtime/training/update_rule.hpp"

namespace lockstep {

/// What train.optimizer and train.ema name, resolved.
struct OptimizerChoice {
  OptimizerConfig config;
  std::shared_ptr<const UpdateRule> rule;
  std::optional<double> ema_decay;
  at::ScalarType dtype = at::kFloat;  ///< of weights, gradients and what is kept

  /// All that is kept beside a trained parameter of these sizes, and its bytes: every planned number comes from here.
  std::vector<KeptTensor> keeps(const Sizes& parameter) const;
  std::int64_t state_bytes(const Sizes& parameter) const;
  /// For JobSpec. `after`: the step after which what is kept begins.
  MakeUpdater maker(std::int64_t after = 0) const;
};

/// Throws ConfigError when there is no such optimizer, or its keys are wrong.
OptimizerChoice choose_optimizer(const TrainConfig& train, const Table<OptimizerKind>& kinds = optimizer_kinds());

class Optimizer : public ParameterUpdater {
 public:
  /// `after`: the rule's first step is the job's step after that one.
  Optimizer(OptimizerChoice choice, const std::vector<Parameter*>& parameters, std::int64_t after = 0)
      : choice_(std::move(choice)), parameters_(parameters), after_(after) {}
  void update(double learning_rate, std::int64_t step, const std::vector<UpdatePart>& parts) override;
  /// By the names of keeps(). Step counts are the job's.
  std::vector<UpdaterState> state() override;

 private:
  struct Group {
    double lr_scale = 1.0, weight_decay = 0.0;
    bool operator<(const Group& other) const {
      return std::pair(lr_scale, weight_decay) < std::pair(other.lr_scale, other.weight_decay);
    }
  };
  struct Member {
    Group group;
    TrainedTensor tensor;  // without a gradient
    at::Tensor average;    // with train.ema
  };
  Group group_of(const Parameter& parameter) const;
  void prepare();
  void average(at::Tensor average, const at::Tensor& value, std::int64_t step) const;

  OptimizerChoice choice_;
  std::vector<Parameter*> parameters_;
  std::int64_t after_;
  std::vector<Member> members_;  // parallel to parameters_
};

/// Throws ConfigError when two tensors that are kept beside one of these parameters have one name.
void check_kept(const OptimizerChoice& choice, const std::vector<Sizes>& parameters, const Section& train);

/// Throws ConfigError when a group, or a pattern of train.freeze, matches no parameter of the model. `train`: the
/// section that both were read from.
void check_patterns(const TrainConfig& config, const std::vector<std::string>& parameter_names, const Section& train);

}  // namespace lockstep
