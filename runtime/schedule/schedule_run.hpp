// SPDX-License-Identifier: Apache-2.0
//
// A schedule run on paper: F, I and W of length 1, B of length 2, and nobody waits for anything but what
// required_before() says. Whether it comes to an end, where it stops, and when each message is made and asked for.
// (Programs, with their messages, are run by Execution.) Private to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "runtime/schedule/schedule.hpp"
#include "runtime/schedule/topology.hpp"

namespace lockstep {

class ScheduleRun {
 public:
  /// Actions of the schedule must be in range. Those that the topology has no use for take no time.
  ScheduleRun(const Schedule& schedule, const Topology& topology);

  /// A worker that cannot go on.
  struct Blocked {
    WorkerId worker;
    std::size_t position = 0;
    Action waits_for;  ///< written as I, if it is the gradient of an input
  };
  const std::vector<Blocked>& blocked() const { return blocked_; }

  /// How many results of `op` (F or I) that stage `from` makes may lie before stage `to` asks for them: with so many
  /// lanes no send waits. Of a run that came to its end.
  int lanes(Op op, StageId from, StageId to) const;

 private:
  struct Row {
    std::size_t next = 0;
    int free_at = 0;
    int started = 0;  ///< the action before the next one: where the post of the next one's inputs stands
  };
  static constexpr int kNever = -1;
  /// Times of B stand where those of I do. W is asked for by nobody.
  static std::size_t slot(Op op) { return op == Op::forward ? 0 : 1; }
  std::size_t cell(StageId stage, int micro_batch) const {
    return index(stage) * micro_batches_ + static_cast<std::size_t>(micro_batch);
  }
  bool step(Row& row, const Action& action);

  const Schedule& schedule_;
  const Topology& topology_;
  const std::size_t micro_batches_;
  std::array<std::vector<std::vector<Action>>, 2> required_;  ///< [slot][stage], of micro-batch 0: all are alike
  std::array<std::vector<int>, 2> end_, post_;                ///< [slot][cell]
  std::vector<Blocked> blocked_;
};

}  // namespace lockstep
