// SPDX-License-Identifier: Apache-2.0
//
// Looped, breadth first: every worker has v stages, P apart, and runs all micro-batches through one before it turns to
// the next: GPipe, v times round.
// Lamy-Poirier, "Breadth-First Pipeline Parallelism", MLSys 2023 (arXiv 2211.05953, 2022), section 4.
//
// P = 2 workers, v = 2 stages each, M = 4 micro-batches, a backward twice as long as a forward:
//
//   w0 | 0F0 0F1 0F2 0F3 2F0 2F1 2F2 2F3 ........... 2B0---- 2B1---- 2B2---- 2B3---- 0B0---- 0B1---- 0B2---- 0B3----
//   w1 | ... 1F0 1F1 1F2 1F3 3F0 3F1 3F2 3F3 3B0---- 3B1---- 3B2---- 3B3---- 1B0---- 1B1---- 1B2---- 1B3----
//
// Bubble: (P-1)/(vM+P-1): the paper's overhead (P-1)/(vM), as a share of the step. For equal stages, free messages and
// M >= P (with fewer, a worker waits for the loop to come round).
// Memory: v M forwards alive on every worker, each of a stage 1/v as large as GPipe's.
//
// OUR backwards of a stage ascend in micro-batches, because gradients are summed in the order 0..M-1 in every schedule.
// torch.distributed.pipelining's ScheduleLoopedBFS runs them from the last to the first. Bubble and memory are the
// same.
#include "runtime/schedule/generators.hpp"

namespace lockstep {

Schedule looped_bfs(const ScheduleShape& shape) {
  Schedule schedule{"looped_bfs", shape.workers * shape.virtual_stages, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    std::vector<Action>& row = schedule.rows.emplace_back();
    row.reserve(2 * static_cast<std::size_t>(shape.virtual_stages) * static_cast<std::size_t>(shape.micro_batches));
    for (int number = 0; number < shape.virtual_stages; ++number) {
      for (int m = 0; m < shape.micro_batches; ++m) row.push_back({loop_stage(shape, worker, number), Op::forward, m});
    }
    for (int number = shape.virtual_stages - 1; number >= 0; --number) {
      for (int m = 0; m < shape.micro_batches; ++m) row.push_back({loop_stage(shape, worker, number), Op::backward, m});
    }
  }
  return schedule;
}

}  // namespace lockstep
