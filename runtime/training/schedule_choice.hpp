// SPDX-License-Identifier: Apache-2.0
//
// pipeline.schedule and pipeline.costs, brought together with the model that was cut: the schedule that a job runs, and
// what the simulator is to believe about it.
#pragma once

#include "runtime/config/config.hpp"
#include "runtime/graph/partition.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"

namespace lockstep {

struct ScheduleChoice {
  Schedule schedule;
  Order order = Order::ascending;  ///< any: of a file, which may sum gradients in an order of its own
  std::string warning = {};        ///< empty: none
  std::string reason = {};         ///< of auto: what was chosen, and why
};

/// Throws ConfigError when the config names a schedule that there is not.
void check_schedule_name(const Config& config);

/// The schedule of one replica that the config names, for so many micro-batches; `partition` is one replica's. `auto`
/// is decided by `measured`, or else by costs_of(). Throws ConfigError for a name that there is not, a shape that the
/// schedule forbids, or a file that cannot be read or is of another number of stages or micro-batches; ScheduleError
/// for a file whose schedule cannot run.
ScheduleChoice choose_schedule(const Config& config, const Partition& partition, int micro_batches,
                               const Costs* measured = nullptr);

/// pipeline.costs as costs per stage. Throws ConfigError for a list that is neither per stage nor per layer.
Costs costs_of(const Config& config, const Partition& partition);

}  // namespace lockstep
