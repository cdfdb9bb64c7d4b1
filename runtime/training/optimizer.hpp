// SPDX-License-Identifier: Apache-2.0
//
// SGD, Adam (Kingma, Ba, 2015) and AdamW (Loshchilov, Hutter, 2019) by LibTorch's fused kernels, over one worker's
// parameters. The kernels are element-wise, so the result does not depend on which worker holds a parameter.
#pragma once

#include <map>
#include <string>

#include "runtime/config/config.hpp"
#include "runtime/engine/updater.hpp"

namespace lockstep {

class Optimizer : public ParameterUpdater {
 public:
  Optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters)
      : config_(config), parameters_(parameters) {}
  /// For JobSpec.
  static MakeUpdater maker(const OptimizerConfig& config);
  void update(double learning_rate, std::int64_t step) override;
  /// PyTorch's names: "momentum_buffer"; "exp_avg" and "exp_avg_sq". Step counts are the job's.
  std::vector<UpdaterState> state() override;

 private:
  struct Group {
    double lr_scale = 1.0, weight_decay = 0.0;
    bool operator<(const Group& other) const {
      return std::pair(lr_scale, weight_decay) < std::pair(other.lr_scale, other.weight_decay);
    }
  };
  struct State {
    std::vector<at::Tensor> values, first, second,
        steps;  // momentum or moments, in the order of the group's parameters
    std::vector<Parameter*> parameters;
  };
  Group group_of(const Parameter& parameter) const;
  void prepare();
  void update_group(const Group& group, State& state, double learning_rate, std::int64_t step);

  OptimizerConfig config_;
  std::vector<Parameter*> parameters_;
  std::map<Group, State> groups_;
};

/// A line for `lockstep list optimizers`.
std::string summary_of(OptimizerType type);

/// Bytes of state that the optimizer keeps for each element that it trains.
double state_bytes_per_element(const TrainConfig& config);

/// Throws ConfigError when a group, or a pattern of train.freeze, matches no parameter of the model. `train`: the
/// section that both were read from.
void check_patterns(const TrainConfig& config, const std::vector<std::string>& parameter_names, const Section& train);

}  // namespace lockstep
