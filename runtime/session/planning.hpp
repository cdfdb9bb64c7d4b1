// SPDX-License-Identifier: Apache-2.0
//
// Where configs, profiles and the planner meet: `lockstep plan`, `--plan` and `partition: auto`.
#pragma once

#include <map>

#include "partitioner/make_plan.hpp"
#include "runtime/profile/profile_model.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

inline constexpr double kMisfit = 0.15;  ///< of times that are not linear in rows; and more than the noise
inline constexpr double kTinyUs = 100;   ///< of such layers nothing is said: no plan depends on them

/// A model of measured layers, to be planned.
class Planning {
 public:
  /// `whole`: of one_worker() of the config; `workers`: for whom it will plan. References are kept; `config` is read
  /// for everything but the cuts. Throws UserError when the profile lacks a layer on the kind of one of their devices.
  Planning(const Config& config, std::string config_path, const Trainer& whole, const Profile& profile,
           const std::vector<PlannedWorker>& workers);

  /// Of `replicas` count, groups and micro-batches are read; `workers`: of all of them.
  PlanProblem problem(Replicas replicas, std::vector<PlannedWorker> workers) const;
  /// One point of the search as it is written down, with its prediction.
  PlanFile file(const PlanProblem& problem, const RankedPlan& plan) const;
  /// Of what the trainer runs (which takes no more workers than the plan has).
  PlanPrediction predict(const Trainer& trainer, const PlanProblem& problem) const;
  /// Layers whose costs by other numbers of rows nobody has measured or written.
  std::vector<std::string> rows_untold() const;

  /// Layers per stage of a cutter, by what they cost the first worker; not of auto, which is a search.
  std::vector<int> cut_by(CutBy by, const PlanProblem& problem, int stages) const;
  /// By the names of the first layers of all stages but the first. Throws UserError that begins with `flag`.
  std::vector<int> cut_before(const std::vector<std::string>& names, const std::string& flag) const;

  /// What the numbers are not sure of: layers that do not scale, sizes that were not measured.
  std::vector<std::string> doubts(int micro_batches) const;
  /// Why nothing fits, and what would: for a UserError.
  std::string nothing_fits(const PlanProblem& problem, const PlanResult& result) const;

 private:
  PlanPrediction prediction(const PlanProblem& problem, const PlanChoice& choice, const Program& program, Costs costs,
                            const Simulation& simulated) const;
  std::string carried_profile() const;

  const Config& config_;
  std::string config_path_;
  const Trainer& whole_;
  const Profile& profile_;
  std::map<std::string, std::vector<LayerProfile>> layers_;  ///< by kind of device
};

/// What the optimizer keeps beside each parameter: PlanProblem::optimizer_bytes.
std::vector<double> optimizer_bytes(const Assembly& assembly);
/// Parameters, gradients and optimizer state of each stage.
std::vector<double> state_bytes_of_stages(const Assembly& assembly);

/// What a plan is recognised by: names and signatures of the layers.
std::string model_signature(const Trainer& trainer);

/// What to run for a plan that fits the config.
std::string plan_again(const PlanFile& plan, const Config& config);

/// What a trainer runs; the placement is that of all replicas.
PlanChoice choice_of(const Trainer& trainer);
/// pipeline.recompute as it is written.
std::string recompute_text(const PipelineConfig& pipeline);

/// The config as the choice has it, and of `replicas` count, groups and micro-batches.
void take_choice(Config& config, const PlanChoice& choice, const Replicas& replicas);

/// The config's workers as the profile knows them by rank; ranks that it does not know are of speed 1.
std::vector<PlannedWorker> workers_on_ranks(const Profile& profile, const std::vector<RankId>& rank_of_worker,
                                            const Config& config);

}  // namespace lockstep
