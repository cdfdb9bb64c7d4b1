// SPDX-License-Identifier: Apache-2.0
//
// GPipe: all forwards, then all backwards.
// Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", NeurIPS 2019,
// section 2.3.
//
// P = 3 workers, M = 4 micro-batches, a backward twice as long as a forward:
//
//   worker 0 | F0 F1 F2 F3 ................. B0--- B1--- B2--- B3---
//   worker 1 | .. F0 F1 F2 F3 ........ B0--- B1--- B2--- B3---
//   worker 2 | ..... F0 F1 F2 F3 B0--- B1--- B2--- B3---
//
// Bubble: (P-1)/(M+P-1) for equal stages; step = (M-1)(max f + max b) + sum(f + b) for any stages.
// Memory: M micro-batches alive on every worker.
//
// The paper runs the backwards from the last micro-batch to the first; here they ascend, because gradients are summed
// in micro-batch order 0..M-1 in every schedule. Bubble and memory are the same.
#include "runtime/schedule/generators.hpp"

namespace lockstep {

Schedule gpipe(const ScheduleShape& shape) {
  Schedule schedule{"gpipe", shape.workers, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    std::vector<Action>& row = schedule.rows.emplace_back();
    for (int m = 0; m < shape.micro_batches; ++m) row.push_back({StageId(worker), Op::forward, m});
    for (int m = 0; m < shape.micro_batches; ++m) row.push_back({StageId(worker), Op::backward, m});
  }
  return schedule;
}

}  // namespace lockstep
