// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/schedule.hpp"

#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

std::vector<WorkerId> row_of_stage(const Schedule& schedule) {
  std::vector<WorkerId> rows(static_cast<std::size_t>(schedule.stages));
  for (int worker = 0; worker < schedule.workers(); ++worker) {
    for (const Action& action : schedule.rows[static_cast<std::size_t>(worker)]) {
      if (!action.stage.valid() || action.stage.value() >= schedule.stages) {
        throw ScheduleError(concat("schedule ", schedule.name, ": worker ", worker, " has ", to_text(action),
                                   ", but stages are 0 to ", schedule.stages - 1));
      }
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
