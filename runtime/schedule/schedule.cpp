// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/schedule.hpp"

#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

void check_ranges(const Schedule& schedule) {
  for (int worker = 0; worker < schedule.workers(); ++worker) {
    for (const Action& action : schedule.rows[static_cast<std::size_t>(worker)]) {
      const bool stage = action.stage.valid() && action.stage.value() < schedule.stages;
      if (stage && action.micro_batch >= 0 && action.micro_batch < schedule.micro_batches) continue;
      throw ScheduleError(concat("schedule ", schedule.name, ": worker ", worker, " has ", to_text(action),
                                 stage ? ", but micro-batches are 0 to " : ", but stages are 0 to ",
                                 (stage ? schedule.micro_batches : schedule.stages) - 1));
    }
  }
}

std::vector<WorkerId> row_of_stage(const Schedule& schedule) {
  check_ranges(schedule);
  std::vector<WorkerId> rows(static_cast<std::size_t>(schedule.stages));
  for (int worker = 0; worker < schedule.workers(); ++worker) {
    for (const Action& action : schedule.rows[static_cast<std::size_t>(worker)]) {
      WorkerId& owner = rows[static_cast<std::size_t>(action.stage.value())];
      if (owner.valid() && owner.value() != worker) {
        throw ScheduleError(concat("schedule ", schedule.name, ": stage ", action.stage, " is on workers ", owner,
                                   " and ", worker, "; every stage belongs to one worker"));
      }
      owner = WorkerId(worker);
    }
  }
  for (int stage = 0; stage < schedule.stages; ++stage) {
    if (!rows[static_cast<std::size_t>(stage)].valid()) {
      throw ScheduleError(concat("schedule ", schedule.name, ": stage ", stage, " is on no worker"));
    }
  }
  return rows;
}

}  // namespace lockstep
