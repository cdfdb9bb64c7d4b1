// SPDX-License-Identifier: Apache-2.0
//
// Schedule -> Program. Pure, deterministic and torch-free: every rank lowers by itself and gets the same program.
//
// A row of the program is: the phases of the exchanges that stand at the beginning, in the order of the table; then per
// action
//
//   receive its inputs; post the inputs of the next action; compute; send its outputs
//
// then what stands behind the computes, place by place; at last wait_sends. Messages between stages of one row are left
// out. evaluate keeps the schedule's F actions only, flush and stop none.
#pragma once

#include "runtime/schedule/program.hpp"

namespace lockstep {

struct LowerOptions {
  Mode mode = Mode::train;
  bool clip = false;  ///< a global norm is needed before the update
  bool post_validation = false;
  Recompute recompute = Recompute::never;
};

/// Drops B, I and W of stages without backward, W of stages without trainable layers (B then means I alone), and sends
/// no gradient over flows that are not differentiable. Throws ScheduleError when the schedule does not fit the topology
/// (other number of stages, an action out of range) or the wiring (a stage on another row).
Program lower(const Schedule& schedule, const Topology& topology, const Wiring& wiring, const LowerOptions& options);
/// With the wiring that the schedule itself asks for.
Program lower(const Schedule& schedule, const Topology& topology, const LowerOptions& options);

/// The rows that a program of these exchanges has for a schedule; program.rows is not looked at. A program is right
/// when rows_of(program, schedule_of(program)) == program.rows and its schedule is: that is what validate() proves.
std::vector<std::vector<Instruction>> rows_of(const Program& program, const Schedule& schedule);

}  // namespace lockstep
