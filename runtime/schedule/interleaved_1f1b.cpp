// SPDX-License-Identifier: Apache-2.0
//
// Interleaved 1F1B: every worker has v stages, P apart, and takes one forward and one backward in turn over all of
// them. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", SC 2021,
// section 2.2.2 and figure 4.
//
// P = 2 workers, v = 2 stages each, M = 4 micro-batches, a backward twice as long as a forward:
//
//   w0 | 0F0 0F1 2F0 2F1 0F2 ... 2B0---- 0F3 2B1---- 2F2 0B0---- 2F3 0B1---- ... 2B2---- ... 2B3---- 0B2---- 0B3----
//   w1 | ... 1F0 1F1 3F0 3B0---- 3F1 3B1---- 1F2 1B0---- 1F3 1B1---- 3F2 3B2---- 3F3 3B3---- 1B2---- 1B3----
//
// Bubble: (P-1)/(vM+P-1): the paper's (1/v) (P-1)/M, as a share of the step. For equal stages, free messages and P
// dividing M.
// Memory: worker r keeps at most (v-1) g + 2 (P-1-r) + 1 forwards alive, each of a stage 1/v as large as one of 1F1B;
// g is the size of the first group (interleaved.hpp), P where P divides M.
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/interleaved.hpp"

namespace lockstep {

Schedule interleaved_1f1b(const ScheduleShape& shape) {
  const int last = shape.virtual_stages - 1;
  const InterleavedOrder order = interleaved_order(shape);
  const std::size_t visits = order.visits.size();
  Schedule schedule{"interleaved_1f1b", shape.workers * shape.virtual_stages, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    std::vector<Action>& row = schedule.rows.emplace_back();
    row.reserve(2 * visits);
    const auto forward = [&](const Visit& visit) {
      row.push_back({loop_stage(shape, worker, visit.number), Op::forward, visit.micro_batch});
    };
    // The forwards that the last worker needs before its first backward, and two more for each worker in between.
    const auto warm_up =
        std::min(visits, static_cast<std::size_t>(last * order.first_group + 2 * (shape.workers - 1 - worker)));
    for (std::size_t i = 0; i < warm_up; ++i) forward(order.visits[i]);
    for (std::size_t i = 0; i < visits; ++i) {
      if (warm_up + i < visits) forward(order.visits[warm_up + i]);
      const Visit& visit = order.visits[i];
      row.push_back({loop_stage(shape, worker, last - visit.number), Op::backward, visit.micro_batch});
    }
  }
  return schedule;
}

}  // namespace lockstep
