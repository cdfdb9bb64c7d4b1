// SPDX-License-Identifier: Apache-2.0
//
// DualPipeV: DualPipe cut in half. Two stages a worker in a V, and in the middle every forward of one stage is paired
// with a backward of the other, so that an engine can run the pair at once and hide its communication. Lockstep runs a
// pair one after the other, and writes it to CSV as the pair that it is.
// DeepSeek-AI, "DeepSeek-V3 Technical Report" (arXiv 2412.19437, 2024), section 3.2.1; cut in half by Qi et al.,
// "DualPipe could be better without the Dual" (2025); the eight steps are those of DeepSeek's dualpipev.py.
//
// P = 2 workers, M = 4 micro-batches, F, I and W of the same length (stages 0 and 3 on worker 0):
//
//   worker 0 | 0F0 0F1 0F2 3F0 3I0 3W0 3F1 0F3 3B1---- 3F2 0B0---- 3B2---- 3F3 ... 0B1---- 3B3---- 0I2 0W2 0I3 0W3
//   worker 1 | ... 1F0 2F0 1F1 2F1 1F2 2B0---- 2F2 1B0---- 1F3 2B1---- 2F3 1B1---- 2B2---- 1B2---- 2I3 1I3 2W3 1W3
//
// Bubble: (P-1)/(6M+P-1) for f = i = w, equal stages and free messages, when pairs run one after the other.
// Memory: 2P + 1 forwards from F to W, each of a stage half as large as one of 1F1B.
// Legal: M >= 2P.
#include <deque>
#include <map>

#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

namespace {

class DualRow {
 public:
  DualRow(Schedule& schedule, StageId down, StageId up) : schedule_(schedule), stages_{down, up} {
    schedule_.rows.emplace_back();
  }

  /// The next forward of stage `number`; the next backward, in full or its I alone, whose W then waits in line.
  Action forward(int number) { return add({stages_[number], Op::forward, forwards_[number]++}); }
  Action backward(int number) { return add({stages_[number], Op::backward, backwards_[number]++}); }
  void input_grad(int number) { waiting_.push_back(add({stages_[number], Op::input_grad, backwards_[number]++})); }
  /// The W that has waited longest.
  bool weight_grad() {
    if (waiting_.empty()) return false;
    add({waiting_.front().stage, Op::weight_grad, waiting_.front().micro_batch});
    waiting_.pop_front();
    return true;
  }
  void pair(int forwards, int backwards) {
    const Action first = forward(forwards);
    schedule_.overlapped.emplace_back(first, backward(backwards));
  }

 private:
  const Action& add(const Action& action) { return schedule_.rows.back().emplace_back(action); }

  Schedule& schedule_;
  StageId stages_[2];
  int forwards_[2] = {0, 0}, backwards_[2] = {0, 0};
  std::deque<Action> waiting_;
};

}  // namespace

Schedule dualpipev(const ScheduleShape& shape) {
  const int workers = shape.workers;
  if (shape.micro_batches < 2 * workers) {
    throw ScheduleError(concat("schedule dualpipev needs 2 micro-batches per worker, got ", shape.micro_batches,
                               " for ", workers, " workers; the nearest legal: micro_batches = ", 2 * workers,
                               shape.micro_batches > 1 ? concat(", or ", shape.micro_batches / 2, " workers (",
                                                                shape.micro_batches / 2 * 2, " stages)")
                                                       : "",
                               "; zbv has the same placement and takes any number"));
  }
  Schedule schedule{"dualpipev", 2 * workers, shape.micro_batches, {}, {}};
  constexpr int kDown = 0, kUp = 1;
  for (int worker = 0; worker < workers; ++worker) {
    DualRow row(schedule, v_stage(shape, worker, kDown), v_stage(shape, worker, kUp));
    const int below = workers - 1 - worker;
    // 1: F down.  2: F down, F up.  3: I and W up, F up.
    for (int i = 0; i < 2 * below; ++i) row.forward(kDown);
    for (int i = 0; i < worker + 1; ++i) row.forward(kDown), row.forward(kUp);
    for (int i = 0; i < below; ++i) row.input_grad(kUp), row.weight_grad(), row.forward(kUp);
    // 4: F down with B up, F up with B down. The very first on the last worker has nothing to hide.
    for (int i = 0; i < shape.micro_batches - 2 * workers + worker + 1; ++i) {
      if (i == 0 && below == 0) {
        row.forward(kDown), row.backward(kUp);
      } else {
        row.pair(kDown, kUp);
      }
      row.pair(kUp, kDown);
    }
    // 5: B up, F up with B down.  6: B up, B down; the second half of them without W.
    for (int i = 0; i < below; ++i) row.backward(kUp), row.pair(kUp, kDown);
    for (int i = 0; i < 2 * (worker + 1); ++i) {
      const int number = i % 2 == 0 ? kUp : kDown;
      if (i < worker + 1) {
        row.backward(number);
      } else {
        row.input_grad(number);
      }
    }
    // 7: W, I down.  8: what is left of W.
    for (int i = 0; i < below; ++i) row.weight_grad(), row.input_grad(kDown);
    while (row.weight_grad()) continue;
  }
  return schedule;
}

}  // namespace lockstep
