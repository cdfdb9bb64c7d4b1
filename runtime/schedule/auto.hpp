// SPDX-License-Identifier: Apache-2.0
//
// `auto`: the best schedule for given costs, with the simulator as the judge. It tries every generator that takes the
// shape, and some hundred list schedules (list_schedule.hpp) built from the costs in the placements that the shape
// allows: a loop, and for two stages a worker a V. So it is never worse than any generator, by simulation.
//
// Best: the shortest period (time per step when steps follow one another, the global norm included when there is one);
// then the shortest isolated step, then the fewest bytes. Deterministic: the same arguments give the same schedule on
// every rank.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// stages x micro-batches at most; beyond, best_schedule() refuses. Some seconds there.
constexpr long kMostAutoCells = 4096;

struct BestOptions {
  /// Most bytes in flight on any worker: what Simulation::peak_bytes counts.
  double limit_bytes = std::numeric_limits<double>::infinity();
  bool clip = false;  ///< the update waits for the global norm
  /// Where the stages are, when that is given already; empty: the schedule decides.
  std::vector<WorkerId> row_of_stage = {};
};

struct BestSchedule {
  Schedule schedule;   ///< named "auto"
  std::string chosen;  ///< the generator's name, or "list schedule (loop; backwards first, ...)"
  std::string reason;  ///< one line: what was chosen, how good it is, and against what
  Simulation simulated;
};

/// -1, 0 or 1; numbers that differ by rounding alone are equal.
int compare_rounded(double a, double b);
/// The faster one is less: by period, then by the step alone.
int compare_speed(const Simulation& a, const Simulation& b);

/// Throws ScheduleError when the shape is not legal or too large, or when nothing fits `limit_bytes`: then it names the
/// smallest limit that would do. UserError when costs do not fit the topology.
BestSchedule best_schedule(const Topology& topology, const Costs& costs, const ScheduleShape& shape,
                           const BestOptions& options = {});

}  // namespace lockstep
