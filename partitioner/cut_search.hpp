// SPDX-License-Identifier: Apache-2.0
//
// The cuts of one schedule, one kind of recompute and one placement: an exact dynamic program for the best bottleneck,
// and all cuts that could be better than a given plan, by bounds that the simulator never beats. Private to this
// folder.
#pragma once

#include <vector>

#include "partitioner/layer_runs.hpp"

namespace lockstep {

/// What is sought.
enum class Goal {
  fastest,   ///< the shortest period within the limits
  balanced,  ///< the least work for the busiest stage within the limits: a start for fastest, no bound of whole cuts
  smallest,  ///< the fewest bytes on the fullest worker, whatever the limits
};

struct CandidateCut {
  std::vector<int> layers_per_stage;
  double bound = 0;  ///< us or bytes: no simulation of it comes below
};

class CutSearch {
 public:
  /// References are kept. `runs`: of runs_by_kind(); `placement[row]`: worker.
  CutSearch(std::vector<LayerRuns>& runs, const ScheduleFacts& facts, std::vector<int> placement);

  const std::vector<int>& placement() const { return placement_; }

  /// The cut whose worst stage is best: time (with several stages a worker, each stage counts for itself), or bytes.
  /// Time: what the stage has to do in a step, and the way of a micro-batch to it and back. Empty when every cut
  /// exceeds a limit. O(stages * layers^2) at most.
  std::vector<int> best_bottleneck(Goal goal);
  /// No cut that fits is better than this; infinite when none fits.
  double least_bound(Goal goal);

  /// All cuts with a bound of at most `most`, best first. False when there are more than `most_cuts`, or when
  /// `most_steps` partial cuts have been looked at: then some are missing.
  bool candidates(Goal goal, double most, std::size_t most_cuts, long& most_steps, std::vector<CandidateCut>& into);

  /// Layers [first, last) as one stage, whatever the others are; infinite where it exceeds the worker's limit.
  double stage_bound(Goal goal, int stage, int first, int last);
  /// Of a whole cut.
  double bound(Goal goal, const std::vector<int>& layers_per_stage);
  /// Whether the bounds of bytes allow it.
  bool may_fit(const std::vector<int>& layers_per_stage);

 private:
  struct RowState {
    double work_us = 0, resident_bytes = 0, peak_bytes = 0;
  };
  /// Layers [first, last) as this stage, on its own: at least.
  double stage_work_us(int stage, int first, int last) const;
  double stage_us(int stage, int first, int last) const;
  double stage_peak_bytes(int stage, int first, int last);
  double stage_bytes(int stage, int first, int last);
  /// Bytes of the row with this stage.
  RowState with(RowState row, int stage, int first, int last);

  void solve(Goal goal);
  void find_ways(const std::vector<LayerRuns>& kinds);
  bool extend(Goal goal, double most, std::size_t most_cuts, long& most_steps, int stage, int first,
              std::vector<CandidateCut>& into);
  double period_bound(const std::vector<int>& layers_per_stage) const;
  double norm_bound(const std::vector<StageTimes>& stages, const std::vector<double>& arrives,
                    double update_us_of_row_0) const;

  LayerRuns& runs(int stage) const { return *runs_[static_cast<std::size_t>(stage)]; }
  double speed(int stage) const { return worker(stage).speed; }
  const PlannedWorker& worker(int stage) const { return worker_of_row(facts_.rows()[static_cast<std::size_t>(stage)]); }
  const PlannedWorker& worker_of_row(WorkerId row) const {
    return problem_.workers[static_cast<std::size_t>(placement_[static_cast<std::size_t>(row.value())])];
  }
  LinkCost link(WorkerId from, WorkerId to) const;

  const ScheduleFacts& facts_;
  const CostModel& model_;
  const PlanProblem& problem_;
  std::vector<int> placement_;
  std::vector<LayerRuns*> runs_;  ///< by stage, on its worker's kind
  int layers_, stages_;
  bool several_;                ///< stages a worker
  std::vector<double> way_us_;  ///< by layer: from the start of a step to its first forward, and from its last I back
  /// [goal][stage * (layers + 1) + first]: the best bottleneck of the stages from here on, and where the first one
  /// ends.
  std::vector<double> least_[3];
  std::vector<int> end_[3];
  std::vector<RowState> row_states_;
  std::vector<int> counts_;
};

}  // namespace lockstep
