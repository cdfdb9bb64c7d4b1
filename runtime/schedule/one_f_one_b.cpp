// SPDX-License-Identifier: Apache-2.0
//
// 1F1B: as few forwards as fill the pipeline, then one forward, one backward in turn.
// Narayanan et al., "PipeDream: Generalized Pipeline Parallelism for DNN Training", SOSP 2019; with a flush at the end
// of each step: "Memory-Efficient Pipeline-Parallel DNN Training" (PipeDream-Flush), ICML 2021, section 3.
//
// P = 3 workers, M = 4 micro-batches, a backward twice as long as a forward:
//
//   worker 0 | F0 F1 F2 ........... B0--- F3 B1--- .. B2--- .. B3---
//   worker 1 | .. F0 F1 ..... B0--- F2 B1--- F3 B2--- .. B3---
//   worker 2 | ..... F0 B0--- F1 B1--- F2 B2--- F3 B3---
//
// Bubble: (P-1)/(M+P-1) for equal stages, as GPipe; for unequal ones ask simulate().
// Memory: at most P - stage micro-batches alive, whatever M is.
#include <algorithm>

#include "runtime/schedule/generators.hpp"

namespace lockstep {

Schedule one_f_one_b(const ScheduleShape& shape) {
  Schedule schedule{"1f1b", shape.workers, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    const StageId stage(worker);
    const int warm_up = std::min(shape.micro_batches, shape.workers - 1 - worker);
    std::vector<Action>& row = schedule.rows.emplace_back();
    for (int m = 0; m < warm_up; ++m) row.push_back({stage, Op::forward, m});
    for (int m = 0; m < shape.micro_batches; ++m) {
      if (warm_up + m < shape.micro_batches) row.push_back({stage, Op::forward, warm_up + m});
      row.push_back({stage, Op::backward, m});
    }
  }
  return schedule;
}

}  // namespace lockstep
