// SPDX-License-Identifier: Apache-2.0
//
// The schedules by name. A new schedule is one file with one function, a declaration here, a line in generators.cpp and
// CMakeLists.txt, and a golden file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/schedule/schedule.hpp"

namespace lockstep {

/// What a generator is asked for. Any number >= 1 is legal unless the schedule's definition forbids it; then the
/// generator throws ScheduleError and says what would be legal.
struct ScheduleShape {
  int workers = 1;
  int virtual_stages = 1;  ///< stages per worker; stages = workers * virtual_stages
  int micro_batches = 1;
};

struct ScheduleGenerator {
  std::string name;
  std::string summary;  ///< one line for `lockstep list schedules`
  std::function<Schedule(const ScheduleShape&)> make;
};

/// All generators, in the order in which they are listed.
const std::vector<ScheduleGenerator>& schedule_generators();

/// Throws ScheduleError that lists all names when there is no such schedule (tools add the nearest one).
Schedule make_schedule(const std::string& name, const ScheduleShape& shape);

Schedule gpipe(const ScheduleShape& shape);
Schedule one_f_one_b(const ScheduleShape& shape);

}  // namespace lockstep
