// SPDX-License-Identifier: Apache-2.0
//
// The search for the best plan: cuts x virtual stages x schedule x recompute x placement under a limit of bytes per
// worker, with the simulator as the judge. Torch-free and deterministic.
//
// Best: fits every worker's limit; then the shortest period (time per step when steps follow one another; with a global
// norm every step drains and it is the step itself), then the shortest isolated step, then the fewest bytes.
#pragma once

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

struct PlanResult {
  std::vector<RankedPlan> ranked;  ///< best first; those that do not fit last
  bool exact = true;               ///< every point of the scope was tried or proved to be no better
  long simulations = 0;
  // When nothing fits:
  double least_limit_bytes = 0;   ///< the smallest limit, the same on every worker, under which this scope has a plan
  bool least_limit_exact = true;  ///< false: the smallest that was found before the search ended
  int least_workers = 0;      ///< the fewest workers, each like worker 0 and a rank of its own, that would do, beyond
                              ///< those that do not; 0: none up to the number of layers
  int layer_in_the_way = -1;  ///< alone in a stage it needs the most bytes

  bool fits() const { return !ranked.empty() && ranked.front().fits; }
  const RankedPlan& best() const { return ranked.front(); }
};

/// `ranked` has every combination that the scope and the schedules' definitions allow, each with its own best plan.
/// Throws UserError when the problem or the scope is contradictory (fewer layers than workers, fixed cuts of another
/// number of layers, a schedule that forbids every shape that is allowed), ScheduleError for an unknown schedule.
PlanResult make_plan(const PlanProblem& problem, const PlanScope& scope = {});

}  // namespace lockstep
