// SPDX-License-Identifier: Apache-2.0
//
// The schedule: for every worker, the ordered list of its actions. It is what people read, draw and exchange as CSV.
// It holds computes only; idle slots are never stored. lower() (lower.hpp) turns it into the Program that workers run.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/schedule/action.hpp"

namespace lockstep {

struct Schedule {
  std::string name;  ///< generator name, or the file it came from
  int stages = 0;    ///< all stages, virtual ones included
  int micro_batches = 0;
  std::vector<std::vector<Action>> rows;  ///< rows[worker] in execution order
  /// Neighbours in a row that a CSV file writes as one cell, "(0F3;3B1)OVERLAP_F_B". They run one after the other.
  std::vector<std::pair<Action, Action>> overlapped;

  int workers() const { return static_cast<int>(rows.size()); }
};

/// Throws ScheduleError at the first action whose stage or micro-batch is out of range.
void check_ranges(const Schedule& schedule);

/// The row that owns each stage, index = stage. Throws ScheduleError when a stage is on no row or on
/// several, and as check_ranges().
std::vector<WorkerId> row_of_stage(const Schedule& schedule);

}  // namespace lockstep
