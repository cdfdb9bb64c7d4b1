// SPDX-License-Identifier: Apache-2.0
//
// The search behind make_plan() for one number of workers: every combination of schedule, virtual stages and recompute,
// each with its placements and cuts, and one budget of simulations for all. Private to this folder.
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
#include "partitioner/make_plan.hpp"
#include "partitioner/placements.hpp"

namespace lockstep {

/// What the searches for different numbers of workers share.
struct PlanTables {
  explicit PlanTables(const PlanProblem& problem)
      : model(problem), one(runs_by_kind(model, false)), several(runs_by_kind(model, true)) {}
  CostModel model;
  std::vector<LayerRuns> one, several;  ///< by kind of device: of one stage a worker, of several
};

/// What a search may still cost: some seconds.
struct SearchBudget {
  long simulations = 0;
  long cells = 3000000;           ///< stages x micro-batches simulated
  long partial_cuts = 2000000;    ///< looked at
  long swapped_stages = 2000000;  ///< of rows swapped: each swap costs a dynamic program over stages x layers
};

class Planner {
 public:
  /// For `workers` of the problem's workers. References are kept. Throws UserError and ScheduleError as make_plan().
  Planner(PlanTables& tables, const PlanScope& scope, int workers, SearchBudget budget);

  // Step by step. `known`: the best plan with other numbers of workers, if any; what is not better need not be found.
  /// The seeds. A combination that cannot be better than `known` has none.
  void seed(const RankedPlan* known);
  /// The rest of the search.
  void search();
  /// Whether every plan of this number of workers that is left is no better than `best`.
  bool proves(const RankedPlan& best);
  /// After search(): `ranked`, with a plan of each combination, and `exact`.
  PlanResult ranked();
  const RankedPlan* best_found() const;

  /// Whether anything fits. `sure`: false when it was not found within the budget, and may be all the same.
  bool anything_fits(bool& sure);
  /// `bytes`: of the fullest worker of the plan that fills it least, if that is less than `bytes` says. False: another
  /// plan may fill it less.
  bool least_bytes(double& bytes);
  /// So far.
  long simulations() const { return simulations_; }
  void give(SearchBudget budget) { left_ = budget; }

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
  std::vector<LayerRuns>& runs(int virtual_stages) { return virtual_stages > 1 ? tables_.several : tables_.one; }
  long cells(const Combination& combination) const;

  void seed(Combination& combination);
  /// False: too many.
  bool prove(Combination& combination, Goal goal, bool against_all);
  void improve(Combination& combination, long most_cells);
  bool move_boundaries(Combination& combination, long& most_cells);
  bool swap_rows(Combination& combination, long& most_cells);
  double cutoff(const Combination& combination, Goal goal, bool against_all) const;
  static double least_bound(Combination& combination, Goal goal);
  /// Those that have a plan, best first.
  std::vector<Combination*> in_order();
  CutSearch& search_of(Combination& combination, const std::vector<int>& placement);

  PlanTables& tables_;
  const CostModel& model_;
  const PlanProblem& problem_;
  const PlanScope& scope_;
  int workers_;
  Placements placements_;
  std::list<Combination> combinations_;
  const RankedPlan* known_ = nullptr;
  SearchBudget left_;
  long simulations_ = 0;
  double least_bytes_ = std::numeric_limits<double>::infinity();
};

}  // namespace lockstep
