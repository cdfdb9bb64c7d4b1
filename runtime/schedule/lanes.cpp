// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/lanes.hpp"

#include <algorithm>
#include <array>

#include "runtime/schedule/wiring.hpp"

namespace lockstep {

namespace {

/// When a run on paper did what. Times of B stand where those of I do.
class PaperRun {
 public:
  PaperRun(const Schedule& schedule, const Topology& topology)
      : schedule_(schedule), topology_(topology), micro_batches_(static_cast<std::size_t>(schedule.micro_batches)) {
    const StageGraph graph = stage_graph(topology);
    const std::size_t cells = static_cast<std::size_t>(topology.stages) * micro_batches_;
    for (const std::size_t op : {kForward, kGradient}) {
      required_[op].resize(static_cast<std::size_t>(topology.stages));
      end_[op].assign(cells, kNever);
      post_[op].assign(cells, kNever);
      for (int s = 0; s < topology.stages; ++s) {
        const Action action{StageId(s), op == kForward ? Op::forward : Op::input_grad, 0};
        required_[op][index(action.stage)] = required_before(action, graph);
      }
    }
    finished_ = run();
  }

  bool finished() const { return finished_; }

  /// Lanes with which no send of results of `op` from one stage to the other waits.
  int lanes(std::size_t op, StageId from, StageId to) const {
    // Messages in the order in which they are sent.
    std::vector<int> order;
    order.reserve(micro_batches_);
    for (int m = 0; m < schedule_.micro_batches; ++m) {
      if (end_[op][cell(from, m)] != kNever && end_[op][cell(to, m)] != kNever) order.push_back(m);
    }
    if (order.empty()) return 1;
    const auto ascends = [&](const std::vector<int>& times, StageId stage) {
      return std::is_sorted(order.begin(), order.end(),
                            [&](int a, int b) { return times[cell(stage, a)] < times[cell(stage, b)]; });
    };
    const auto both_ascend = [&] { return ascends(end_[op], from) && ascends(end_[op], to); };
    if (!both_ascend()) {
      std::reverse(order.begin(), order.end());
      if (!both_ascend()) return schedule_.micro_batches;  // with a lane for each message any two orders fit together
    }
    std::size_t posted = 0, most = 1;
    for (std::size_t sent = 0; sent < order.size(); ++sent) {
      const int now = end_[op][cell(from, order[sent])];
      // Strictly before: what happens at the same moment may have to happen afterwards.
      while (posted < sent && post_[op][cell(to, order[posted])] < now) ++posted;
      most = std::max(most, sent - posted + 1);
    }
    return static_cast<int>(most);
  }

  static constexpr std::size_t kForward = 0, kGradient = 1;

 private:
  static constexpr int kNever = -1;

  struct Row {
    std::size_t next = 0;
    int free_at = 0;
    int started = 0;  ///< the action before the next one: where the post of the next one's inputs stands
  };

  std::size_t cell(StageId stage, int micro_batch) const {
    return index(stage) * micro_batches_ + static_cast<std::size_t>(micro_batch);
  }

  bool run() {
    std::vector<Row> rows(schedule_.rows.size());
    bool done = false;
    for (bool moved = true; moved && !done;) {
      moved = false;
      done = true;
      for (std::size_t r = 0; r < rows.size(); ++r) {
        const std::vector<Action>& actions = schedule_.rows[r];
        while (rows[r].next < actions.size() && step(rows[r], actions[rows[r].next])) moved = true;
        done = done && rows[r].next == actions.size();
      }
    }
    return done;
  }

  bool step(Row& row, const Action& action) {
    const bool drops = action.op != Op::forward && !topology_.has_backward[index(action.stage)];
    if (!drops && action.op != Op::weight_grad) {
      const std::size_t op = action.op == Op::forward ? kForward : kGradient;
      int start = row.free_at;
      for (const Action& required : required_[op][index(action.stage)]) {
        const std::size_t other = required.op == Op::forward ? kForward : kGradient;
        const int end = end_[other][cell(required.stage, action.micro_batch)];
        if (end == kNever) return false;
        start = std::max(start, end);
      }
      post_[op][cell(action.stage, action.micro_batch)] = row.started;
      row.started = start;
      row.free_at = start + (action.op == Op::backward ? 2 : 1);
      end_[op][cell(action.stage, action.micro_batch)] = row.free_at;
    } else if (!drops && topology_.has_weight_grad[index(action.stage)]) {
      row.started = row.free_at++;
    }
    ++row.next;
    return true;
  }

  const Schedule& schedule_;
  const Topology& topology_;
  std::size_t micro_batches_;
  std::array<std::vector<std::vector<Action>>, 2> required_;  ///< [op][stage], of micro-batch 0: all are alike
  std::array<std::vector<int>, 2> end_, post_;                ///< [op][stage * M + m]
  bool finished_ = false;
};

}  // namespace

std::vector<int> lanes_of(const Schedule& schedule, const Topology& topology) {
  const std::vector<WorkerId> rows = row_of_stage(schedule);
  const PaperRun run(schedule, topology);
  std::vector<int> counts;
  for (const Flow& flow : topology.flows) {
    int& count = counts.emplace_back(1);
    if (rows[index(flow.from)] == rows[index(flow.to)]) continue;
    count = lanes(flow);
    if (!run.finished()) continue;
    count = std::max(count, run.lanes(PaperRun::kForward, flow.from, flow.to));
    if (flow.differentiable) count = std::max(count, run.lanes(PaperRun::kGradient, flow.to, flow.from));
    count = std::min(count, std::max(schedule.micro_batches, lanes(flow)));
  }
  return counts;
}

}  // namespace lockstep
