// SPDX-License-Identifier: Apache-2.0
//
// Interleaved zero bubble: ZB-H1 over v stages a worker. Forwards and input gradients in the order of interleaved 1F1B,
// with one forward of head start a worker instead of two (an input gradient is as long as a forward); W put off by as
// many visits as the worker's number, as in ZB-H1.
// The interleaving of Narayanan et al. 2021 (section 2.2.2) with the split backward of Qi et al. 2023 (section 2.2), as
// torch.distributed.pipelining's ScheduleInterleavedZeroBubble combines them.
//
// P = 2 workers, v = 2 stages each, M = 4 micro-batches, F, I and W of the same length:
//
//   worker 0 | 0F0 0F1 2F0 2F1 ... 2I0 2W0 0F2 2I1 2W1 0F3 0I0 0W0 2F2 0I1 0W1 2F3 2I2 2W2 2I3 2W3 0I2 0W2 0I3 0W3
//   worker 1 | ... 1F0 1F1 3F0 3I0 3F1 3I1 3W0 1F2 1I0 3W1 1F3 1I1 1W0 3F2 3I2 1W1 3F3 3I3 3W2 1I2 3W3 1I3 1W2 1W3
//
// Bubble: (P-1)/(3vM+P-1) for f = i = w, equal stages, free messages and P dividing M.
// Memory: (v-1) g + P forwards from F to W on every worker, each of a stage 1/v as large as one of ZB-H1; g is the size
// of the first group (interleaved.hpp), P where P divides M: v P in all. Worker r keeps (v-1) g + P - r of them whole.
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/interleaved.hpp"

namespace lockstep {

Schedule interleaved_zb(const ScheduleShape& shape) {
  const int last = shape.virtual_stages - 1;
  const InterleavedOrder order = interleaved_order(shape);
  const std::size_t visits = order.visits.size();
  Schedule schedule{"interleaved_zb", shape.workers * shape.virtual_stages, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    std::vector<Action>& row = schedule.rows.emplace_back();
    row.reserve(3 * visits);
    const auto forward = [&](const Visit& visit) {
      row.push_back({loop_stage(shape, worker, visit.number), Op::forward, visit.micro_batch});
    };
    const auto gradient = [&](Op op, const Visit& visit) {
      row.push_back({loop_stage(shape, worker, last - visit.number), op, visit.micro_batch});
    };
    const auto warm_up =
        std::min(visits, static_cast<std::size_t>(last * order.first_group + shape.workers - 1 - worker));
    const auto delay = static_cast<std::size_t>(worker);  // of W behind I
    for (std::size_t i = 0; i < warm_up; ++i) forward(order.visits[i]);
    for (std::size_t i = 0; i < visits; ++i) {
      if (warm_up + i < visits) forward(order.visits[warm_up + i]);
      gradient(Op::input_grad, order.visits[i]);
      if (i >= delay) gradient(Op::weight_grad, order.visits[i - delay]);
    }
    for (std::size_t i = visits - std::min(visits, delay); i < visits; ++i) {
      gradient(Op::weight_grad, order.visits[i]);
    }
  }
  return schedule;
}

}  // namespace lockstep
