// SPDX-License-Identifier: Apache-2.0
//
// ZB-V: two stages a worker, placed in a V: worker 0 has the first and the last one, so a backward begins where it is
// needed, and every worker holds the same amount. All workers work without a break from their first action to their
// last, and end as staggered as they began: when steps follow each other without a barrier, nothing is idle.
// Qi, Wan, Amar, Lin, "Pipeline Parallelism with Controllable Memory", NeurIPS 2024 (arXiv 2405.15362), V-ZB; first in
// "Zero Bubble Pipeline Parallelism", ICLR 2024 (arXiv 2401.10241), section 6.
//
// P = 2 workers, M = 4 micro-batches, F, I and W of the same length (stages 0 and 3 on worker 0):
//
//   worker 0 | 0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0F3 0I0 0W0 3F2 3I2 3W2 0I1 0W1 3F3 3I3 3W3 0I2 0W2 0I3 0W3
//   worker 1 | ... 1F0 2F0 1F1 2F1 2I0 2W0 1F2 1I0 1W0 2F2 2I1 2W1 1F3 1I1 1W1 2F3 2I2 2W2 1I2 2I3 1I3 1W2 2W3 1W3
//
// Bubble: of one step alone (P-1)/(6M+P-1); bubble_steady 0. For f = i = w, equal stages, free messages and M >= 2P-1,
// and bubble_steady without a global norm only: with one, every step waits for all workers. With fewer micro-batches
// the pipeline does not fill: it takes 2P-1 forwards until the first backward comes back to worker 0.
// Memory: 2P forwards from F to W on every worker, each of a stage half as large as one of 1F1B: as worker 0 of 1F1B.
#include "runtime/schedule/generators.hpp"

namespace lockstep {

namespace {

class Row {
 public:
  Row(const ScheduleShape& shape, int worker) : down_(v_stage(shape, worker, 0)), up_(v_stage(shape, worker, 1)) {}

  // A run takes the next micro-batch of its op and stage: everything ascends.
  void f_down() { add(down_, Op::forward, next_f_down++); }
  void f_up() { add(up_, Op::forward, next_f_up++); }
  void i_down() { add(down_, Op::input_grad, next_i_down++); }
  void i_up() { add(up_, Op::input_grad, next_i_up++); }
  void w_down() { add(down_, Op::weight_grad, next_w_down++); }
  void w_up() { add(up_, Op::weight_grad, next_w_up++); }

  int next_f_down = 0, next_f_up = 0, next_i_down = 0, next_i_up = 0, next_w_down = 0, next_w_up = 0;
  std::vector<Action> actions;

 private:
  void add(StageId stage, Op op, int micro_batch) { actions.push_back({stage, op, micro_batch}); }
  StageId down_, up_;
};

}  // namespace

Schedule zbv(const ScheduleShape& shape) {
  const int workers = shape.workers;
  const int filling = std::max(shape.micro_batches, 2 * workers - 1);  // what is too much is taken out at the end
  Schedule schedule{"zbv", 2 * workers, filling, {}, {}};
  for (int worker = 0; worker < workers; ++worker) {
    Row row(shape, worker);
    // Filling: down the V, then up as forwards come back, then the first backwards of the way up.
    for (int i = 0; i < 2 * (workers - worker) - 1; ++i) row.f_down();
    for (int i = 0; i < worker; ++i) row.f_up(), row.f_down();
    for (int i = 0; i < workers - worker; ++i) row.f_up(), row.i_up(), row.w_up();
    // Steady: F, I, W of one stage, then of the other.
    while (row.next_f_up < row.next_f_down || row.next_f_down < filling) {
      if (row.next_f_down < filling) row.f_down();
      row.i_down(), row.w_down();
      row.f_up(), row.i_up(), row.w_up();
    }
    // Draining: gradients first, W in what would be idle.
    for (int i = 0; i < worker; ++i) row.i_down(), row.i_up();
    for (int i = 0; i < workers - worker; ++i) row.i_down(), row.w_down();
    while (row.next_w_up < row.next_i_up) row.w_up();
    while (row.next_w_down < row.next_i_down) row.w_down();
    schedule.rows.push_back(std::move(row.actions));
  }
  return filling == shape.micro_batches ? schedule : first_micro_batches(schedule, shape.micro_batches);
}

}  // namespace lockstep
