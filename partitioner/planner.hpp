// SPDX-License-Identifier: Apache-2.0
//
// The search behind make_plan(): every combination of schedule, virtual stages and recompute, each with its placements
// and cuts, and one budget of simulations for all. Private to this folder.
//
//   1. Seeds: the cut with the best bottleneck of every combination and placement, judged.
//   2. Proof: all cuts whose bound is not worse than the best plan so far, judged from the best bound on, until the
//      bound says that no better one is left. First against the best of all, then of each combination.
//   3. Where there are too many of them: boundaries are moved, and rows swapped, as long as that helps and the budget
//      lasts; the result is then not proved to be the best.
#pragma once

#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "partitioner/cut_search.hpp"
#include "partitioner/placements.hpp"
#include "partitioner/plan.hpp"

namespace lockstep {

class Planner {
 public:
  /// References are kept. Throws UserError and ScheduleError as make_plan().
  Planner(const PlanProblem& problem, const PlanScope& scope);

  /// `ranked`, `exact` and `simulations`.
  PlanResult best();
  /// Whether anything fits. False also when it was not found within the budget.
  bool anything_fits();
  /// `bytes`: of the fullest worker of the plan that fills it least. False: another plan may fill it less.
  bool least_bytes(double& bytes);
  long simulations() const { return simulations_; }

 private:
  struct Combination {
    std::string schedule;
    int virtual_stages = 1;
    Recompute recompute = Recompute::never;
    ScheduleFacts facts;
    std::list<CutSearch> searches;     ///< by placement
    std::set<std::vector<int>> tried;  ///< placement and cut
    std::optional<RankedPlan> best;
    bool proved = false;  ///< nothing that is left is better than the best of all
  };
  struct Candidate {
    CandidateCut cut;
    CutSearch* search = nullptr;
  };

  void add_combinations();
  void add(const std::string& schedule, int virtual_stages, Recompute recompute, Schedule rows);
  bool try_cut(Combination& combination, CutSearch& search, const std::vector<int>& layers_per_stage);
  bool may_simulate(const Combination& combination) const;
  LayerRuns& runs(int virtual_stages) { return virtual_stages > 1 ? runs_of_several_ : runs_; }
  long cells(const Combination& combination) const;

  void seed(Combination& combination);
  /// False: too many.
  bool prove(Combination& combination, Goal goal, bool against_all);
  void improve(Combination& combination, long most_cells);
  bool move_boundaries(Combination& combination, long& most_cells);
  bool swap_rows(Combination& combination, long& most_cells);
  double cutoff(const Combination& combination, Goal goal, bool against_all) const;
  const RankedPlan* best_of_all() const;
  CutSearch& search_of(Combination& combination, const std::vector<int>& placement);

  const PlanProblem& problem_;
  const PlanScope& scope_;
  CostModel model_;
  LayerRuns runs_, runs_of_several_;  ///< of one stage a worker, of several
  Placements placements_;
  std::list<Combination> combinations_;
  long simulations_ = 0, cells_left_ = 0, partial_cuts_left_ = 0, swapped_stages_left_ = 0;
  double least_bytes_ = std::numeric_limits<double>::infinity();
};

}  // namespace lockstep
