// SPDX-License-Identifier: Apache-2.0
//
// What a run does about a worker that is persistently slower than it should be (SpeedWatch): says what that costs, and
// which cuts would be better, when anything can be done about it; with --replan the run leaves at its next checkpoint
// and goes on from there with those. Cuts never change a bit.
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "partitioner/make_plan.hpp"
#include "runtime/observe/speed_watch.hpp"
#include "runtime/schedule/measured.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {

/// Better cuts, and what each worker computes in a step under them, by row: what the next part of the run expects.
struct Rebalanced {
  std::vector<int> layers_per_stage;
  std::vector<double> expected_us;
};

/// On what kind of device each row computes, and what layers cost there by the plan's profile.
struct KindsOfRows {
  std::vector<std::string> of_row;
  std::map<std::string, std::vector<LayerCost>> costs;  ///< of all kinds; empty: not known

  bool unlike() const;
};
KindsOfRows kinds_of_rows(const Trainer& trainer, const LoadedConfig& loaded);

/// What is to be said when some host has fewer cores than workers, or a device several; else empty. Collective. Then
/// times of workers have those of others in them, and no Rebalancer has anything to go by.
std::string shared_cores(Process& process, const Trainer& trainer);

std::string to_text(const Rebalanced& rebalanced);
Rebalanced rebalanced_from(const std::string& text);

/// Stands before another observer. Of the process of row 0, on the thread of its worker.
class Rebalancer : public Observer {
 public:
  /// `expected_us`: of SpeedWatch. `replan`: --replan. References outlive it.
  Rebalancer(Trainer& trainer, Observer& next, const KindsOfRows& kinds, std::vector<double> expected_us, bool replan,
             Log log);

  void on_result(const StepResult& result) override;
  void on_stop(StopReason reason) override { next_.on_stop(reason); }

  const std::atomic<bool>& wanted() const { return wanted_; }  ///< of TrainingOrders::replan
  const std::optional<Rebalanced>& found() const { return found_; }

 private:
  void look_for_better_cuts(const SlowWorker& slow);
  PlanProblem problem(const Costs& costs) const;
  void add_kinds(PlanProblem& problem, int layer, const std::string& kind, const LayerCost& measured) const;

  Trainer& trainer_;
  Observer& next_;
  const KindsOfRows& kinds_;
  SpeedWatch watch_;
  std::optional<CostMeter> meter_;  ///< of the steps since a worker is suspected
  const bool replan_;
  const Log log_;
  std::atomic<bool> wanted_{false};
  std::optional<Rebalanced> found_;
};

}  // namespace lockstep
