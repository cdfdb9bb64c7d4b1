// SPDX-License-Identifier: Apache-2.0
//
// The search for the best plan: number of workers x cuts x virtual stages x schedule x recompute x placement under a
// limit of bytes per worker, with the simulator as the judge. Torch-free and deterministic.
//
// Best: fits every worker's limit; then the shortest period (time per step when steps follow one another; with a global
// norm every step drains and it is the step itself), then the shortest isolated step, then the fewest workers, then the
// fewest bytes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "partitioner/problem.hpp"

namespace lockstep {

/// What may be chosen. An empty list: everything.
struct PlanScope {
  std::vector<std::string> schedules;  ///< generators' names
  std::vector<int> virtual_stages;     ///< stages per worker. Everything: 1, 2 and 4
  std::vector<Recompute> recomputes;
  std::vector<int> layers_per_stage;  ///< fixed cuts
  std::vector<int> placement;         ///< fixed: placement[row] = worker
  bool all_workers = false;           ///< none may be idle. Fixed cuts or a fixed placement say it too
  /// Where the search ends when the space is larger; what has been found counts. It ends earlier where simulations are
  /// long (many stages x micro-batches), after some seconds' worth of them, counted and not timed.
  long most_simulations = 20000;
};

/// The best plan of one combination of schedule, virtual stages and recompute.
struct RankedPlan {
  PlanChoice choice;
  Simulation simulated;  ///< without a timeline
  bool fits = true;
  std::string why;  ///< one line. Why it lost: "step 12.3 % longer: bubble 18.2 % against 9.1 %"; of any that does not
                    ///< fit, the best one too: "needs 2.30 GiB on worker 0, limit 2 GiB"
};

/// Whether `a` is the better plan; equal but for rounding is not better.
bool is_better(const RankedPlan& a, const RankedPlan& b, const PlanProblem& problem);

/// The row that exceeds its worker's limit by most; row -1: all fit.
struct Excess {
  int row = -1, worker = -1;
  double bytes = 0, limit = 0;
};
Excess largest_excess(const PlanProblem& problem, const RankedPlan& plan);

struct PlanResult {
  std::vector<RankedPlan> ranked;  ///< of the best number of workers; best first, those that do not fit last
  bool exact = true;               ///< of that number, every point of the scope was tried or proved to be no better
  bool exact_workers = true;       ///< and the same is true of every other number of workers
  long simulations = 0;
  /// Where fewer workers are better: the best plan of all of them (if the model can be cut into so many stages).
  std::optional<RankedPlan> with_all;
  // When nothing fits:
  double least_limit_bytes = 0;   ///< the smallest limit, the same on every worker, under which this scope has a plan
  bool least_limit_exact = true;  ///< false: the smallest that was found before the search ended
  int least_workers = 0;  ///< the fewest workers, each like worker 0 and a rank of its own, that would do, beyond
                          ///< those that do not; 0: none up to the number of layers. Not looked for: fixed cuts
  bool least_workers_exact = true;  ///< false: fewer, or any, were not found but may do
  int layer_in_the_way = -1;        ///< alone in a stage it needs the most bytes
  /// Of fixed cuts: the same question without them.
  std::shared_ptr<const PlanResult> without_cuts;

  bool fits() const { return !ranked.empty() && ranked.front().fits; }
  const RankedPlan& best() const { return ranked.front(); }
};

/// Up to so many workers every smaller number is searched too.
constexpr int kMostCounts = 8;

/// `ranked` has every combination that the scope and the schedules' definitions allow, each with its own best plan.
/// With more than kMostCounts workers, not every smaller number is searched (`exact_workers` says so), but no plan is
/// worse than the best one of all workers. Throws UserError when the problem or the scope is contradictory (fewer
/// layers than stages, fixed cuts of another number of layers, a schedule that forbids every shape that is allowed),
/// ScheduleError for an unknown schedule.
///
/// Of several replicas one pipeline is searched like that, with a part of the workers each, and its best plans are
/// judged with all replicas: whether another cut would then be better is not looked at (`exact` says so). A fixed
/// placement is that of one replica.
PlanResult make_plan(const PlanProblem& problem, const PlanScope& scope = {});

}  // namespace lockstep
