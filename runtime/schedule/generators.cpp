// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/generators.hpp"

#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

const std::vector<ScheduleGenerator>& schedule_generators() {
  static const std::vector<ScheduleGenerator> table = {
      {"gpipe", "all forwards, then all backwards; keeps every micro-batch alive", gpipe},
      {"1f1b", "one forward, one backward; keeps at most workers - stage micro-batches alive", one_f_one_b},
  };
  return table;
}

Schedule make_schedule(const std::string& name, const ScheduleShape& shape) {
  if (shape.workers < 1 || shape.virtual_stages < 1 || shape.micro_batches < 1) {
    throw ScheduleError(concat("schedule ", name, ": got ", shape.workers, " workers, ", shape.virtual_stages,
                               " stages per worker and ", shape.micro_batches,
                               " micro-batches; each must be at least 1"));
  }
  std::vector<std::string> names;
  for (const ScheduleGenerator& generator : schedule_generators()) {
    if (generator.name == name) return generator.make(shape);
    names.push_back(generator.name);
  }
  throw ScheduleError(concat("unknown schedule '", name, "'; known schedules: ", join(names)));
}

}  // namespace lockstep
