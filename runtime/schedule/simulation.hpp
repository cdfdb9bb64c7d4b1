// SPDX-License-Identifier: Apache-2.0
//
// When will each worker do what: the Program executed in time, under the same blocking semantics as validate() and the
// workers (execution.hpp), with given costs.
//
// Messages of different exchanges never slow each other down, and an instruction costs nothing but what Costs says.
// What a row sends several replicas at once goes over its link one after the other.
#pragma once

#include <vector>

#include "runtime/schedule/costs.hpp"
#include "runtime/schedule/timeline.hpp"

namespace lockstep {

struct Simulation {
  Timeline timeline;
  double step_us = 0;               ///< of the isolated step: from its start until the last worker is done
  double period_us = 0;             ///< per step, when many follow one another without a barrier: of the slowest row
  double bubble = 0;                ///< idle share of the isolated step: 1 - sum of work / (workers * step_us)
  double bubble_steady = 0;         ///< the same of period_us
  std::vector<double> work_us;      ///< per worker, in one step
  std::vector<double> peak_bytes;   ///< per worker: what Costs says is held, and receive slots from post to use
  std::vector<double> total_bytes;  ///< per worker, at most: all tensors, with resident_bytes and workspace
  std::vector<int> peak_micro_batches;  ///< per worker: forwards whose backward has not ended (each stage counts)
  long messages = 0;                    ///< of values and gradients, in one step
};

/// The timeline covers `steps` steps; all other numbers are about one step. 0 steps: no timeline, which saves half of
/// the memory for a program of millions of instructions.
/// Throws ScheduleError when the program blocks, UserError when costs do not fit the program or are negative.
Simulation simulate(const Program& program, const Costs& costs, int steps = 1);

}  // namespace lockstep
