// SPDX-License-Identifier: Apache-2.0
//
// When will each worker do what: the Program executed in time, under the same blocking semantics as validate() and the
// workers (execution.hpp), with given costs.
//
// Messages between two workers never slow each other down, and an instruction costs nothing but what Costs says.
#pragma once

#include <limits>
#include <vector>

#include "runtime/schedule/timeline.hpp"

namespace lockstep {

struct StageCost {
  double forward_us = 0;
  double input_grad_us = 0;
  double weight_grad_us = 0;  ///< B costs input_grad_us + weight_grad_us
  double held_bytes = 0;      ///< per micro-batch, from the start of F to the end of I or B
  double held_w_bytes = 0;    ///< per micro-batch, from the end of I to the end of W
  // Of a micro-batch whose forward is run again (recomputed() in program.hpp):
  double recompute_us = 0;      ///< B and I cost so much more
  double checkpoint_bytes = 0;  ///< takes the place of held_bytes. Layers are run again one by one, so the activations
                                ///< of no more than one of them are there at once; these are not counted. What W needs
                                ///< of them lives from I to W, as ever
};

struct LinkCost {
  double latency_us = 0;
  double bytes_per_us = std::numeric_limits<double>::infinity();
};

struct Costs {
  std::vector<StageCost> stages;   ///< index = stage
  std::vector<double> flow_bytes;  ///< index = Topology::flows, per micro-batch, each way; empty: 0
  std::vector<double> tie_bytes;   ///< index = Topology::ties; empty: 0
  LinkCost link;                   ///< between any two workers; other messages cost the latency alone
  std::vector<double> update_us;   ///< index = worker; empty: 0
};

/// The same cost for every stage, everything else free.
Costs equal_costs(int stages, double forward_us, double input_grad_us, double weight_grad_us);

struct Simulation {
  Timeline timeline;
  double step_us = 0;                   ///< of the isolated step: from its start until the last worker is done
  double period_us = 0;                 ///< per step, when many follow one another without a barrier
  double bubble = 0;                    ///< idle share of the isolated step: 1 - sum of work / (workers * step_us)
  double bubble_steady = 0;             ///< the same of period_us
  std::vector<double> work_us;          ///< per worker, in one step
  std::vector<double> peak_bytes;       ///< per worker: what Costs says is held, and receive slots from post to use
  std::vector<int> peak_micro_batches;  ///< per worker: forwards whose backward has not ended (each stage counts)
  long messages = 0;                    ///< of values and gradients, in one step
};

/// The timeline covers `steps` steps; all other numbers are about one step. 0 steps: no timeline, which saves half of
/// the memory for a program of millions of instructions.
/// Throws ScheduleError when the program blocks, UserError when costs do not fit the program or are negative.
Simulation simulate(const Program& program, const Costs& costs, int steps = 1);

}  // namespace lockstep
