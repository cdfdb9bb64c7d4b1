// SPDX-License-Identifier: Apache-2.0
//
// The schedules by name. A new schedule is one file with one function, a declaration here, a line in generators.cpp and
// CMakeLists.txt, and a golden file.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "runtime/schedule/replicas.hpp"
#include "runtime/schedule/schedule.hpp"

namespace lockstep {

/// What a generator is asked for. Any number >= 1 is legal unless the schedule's definition forbids it; then the
/// generator throws ScheduleError and says what would be legal.
struct ScheduleShape {
  int workers = 1;
  int virtual_stages = 1;  ///< stages per worker; stages = workers * virtual_stages
  int micro_batches = 1;
};

/// How many stages a worker may have.
struct VirtualStages {
  int least = 1;
  int most = 1;  ///< kAnyNumber: no limit
  static constexpr int kAnyNumber = std::numeric_limits<int>::max();
  bool allows(int number) const { return number >= least && number <= most; }
  int nearest(int number) const { return std::clamp(number, least, most); }
  std::string text() const;  ///< "1", "2", ">= 2"
};

struct ScheduleGenerator {
  std::string name;
  std::string summary;  ///< one line for `lockstep list schedules`
  VirtualStages virtual_stages;
  std::function<Schedule(const ScheduleShape&)> make;  ///< for what virtual_stages allows; see make_schedule()
};

/// All generators, in the order in which they are listed.
const std::vector<ScheduleGenerator>& schedule_generators();

/// Their names, in that order.
std::vector<std::string> schedule_names();

/// Null when there is no such schedule.
const ScheduleGenerator* find_generator(const std::string& name);

/// "there is no schedule '1f1n'; there are: ...; did you mean '1f1b'?". `beside`: what else may be asked for.
std::string no_such_schedule(const std::string& name, const std::vector<std::string>& beside = {});

/// Throws ScheduleError with no_such_schedule(), and one that
/// names the nearest legal shape when the schedule's definition forbids this one.
Schedule make_schedule(const std::string& name, const ScheduleShape& shape);

/// The same schedule for fewer micro-batches: the actions of the others are left out. What was valid stays valid, so a
/// short batch can run under any schedule, one from a file too. Throws ScheduleError unless 1 <= micro_batches <= those
/// of `schedule`.
Schedule first_micro_batches(const Schedule& schedule, int micro_batches);

/// The schedule of all replicas for a mini-batch of so many micro-batches: rows, stages and micro-batches of one
/// replica behind those of the one before. `one`: of the replica that has most of a full mini-batch; with fewer
/// micro-batches it is run as first_micro_batches(). A replica may have none of a short mini-batch.
Schedule replicated(const Schedule& one, const Replicas& replicas, int micro_batches);

/// The stages of a worker when they go round the workers in a loop: worker, worker + P, worker + 2 P, ...
StageId loop_stage(const ScheduleShape& shape, int worker, int number);
/// The stages of a worker when they go down the workers and up again, in a V: number 0 is stage `worker`, number 1 is
/// stage 2 P - 1 - worker. The first and the last stage share a worker, and so do the two in the middle.
StageId v_stage(const ScheduleShape& shape, int worker, int number);

Schedule gpipe(const ScheduleShape& shape);
Schedule one_f_one_b(const ScheduleShape& shape);
Schedule interleaved_1f1b(const ScheduleShape& shape);
Schedule looped_bfs(const ScheduleShape& shape);
Schedule zb_h1(const ScheduleShape& shape);
Schedule interleaved_zb(const ScheduleShape& shape);
Schedule zbv(const ScheduleShape& shape);
Schedule dualpipev(const ScheduleShape& shape);

}  // namespace lockstep
