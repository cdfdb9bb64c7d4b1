// SPDX-License-Identifier: Apache-2.0
//
// ZB-H1: 1F1B with its backward split. I goes back at once, so gradients travel faster; W is put off by as many
// micro-batches as the worker has fewer alive than worker 0, and fills what would be idle at the end.
// Qi, Wan, Huang, Lin, "Zero Bubble Pipeline Parallelism", ICLR 2024 (arXiv 2401.10241, 2023), section 2.2, figure 3.
//
// P = 3 workers, M = 4 micro-batches, F, I and W of the same length:
//
//   worker 0 | F0 F1 F2 ..... I0 W0 F3 I1 W1 I2 W2 I3 W3
//   worker 1 | .. F0 F1 .. I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
//   worker 2 | ..... F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
//
// Bubble: the time (P-1)(f + i - w), a third of 1F1B's for f = i = w: (P-1)/(3M+P-1). For equal stages, free messages,
// w <= f, w <= i and M >= P.
// Memory: P micro-batches from F to W on every worker, as worker 0 of 1F1B: worker r keeps P - r of them whole, and of
// r what W needs (weight_grad_bytes).
#include "runtime/schedule/generators.hpp"

namespace lockstep {

Schedule zb_h1(const ScheduleShape& shape) {
  Schedule schedule{"zb_h1", shape.workers, shape.micro_batches, {}, {}};
  for (int worker = 0; worker < shape.workers; ++worker) {
    const StageId stage(worker);
    const int last = shape.micro_batches;
    const int warm_up = std::min(last, shape.workers - 1 - worker);
    const int delay = worker;  // of W behind I
    std::vector<Action>& row = schedule.rows.emplace_back();
    row.reserve(3 * static_cast<std::size_t>(last));
    for (int m = 0; m < warm_up; ++m) row.push_back({stage, Op::forward, m});
    for (int m = 0; m < last; ++m) {
      if (warm_up + m < last) row.push_back({stage, Op::forward, warm_up + m});
      row.push_back({stage, Op::input_grad, m});
      if (m >= delay) row.push_back({stage, Op::weight_grad, m - delay});
    }
    for (int m = std::max(0, last - delay); m < last; ++m) row.push_back({stage, Op::weight_grad, m});
  }
  return schedule;
}

}  // namespace lockstep
