// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/schedule_run.hpp"

#include <algorithm>

namespace lockstep {

ScheduleRun::ScheduleRun(const Schedule& schedule, const Topology& topology)
    : schedule_(schedule), topology_(topology), micro_batches_(static_cast<std::size_t>(schedule.micro_batches)) {
  const StageGraph graph = stage_graph(topology);
  for (const Op op : {Op::forward, Op::input_grad}) {
    end_[slot(op)].assign(static_cast<std::size_t>(topology.stages) * micro_batches_, kNever);
    post_[slot(op)] = end_[slot(op)];
    for (int s = 0; s < topology.stages; ++s)
      required_[slot(op)].push_back(required_before({StageId(s), op, 0}, graph));
  }
  std::vector<Row> rows(schedule.rows.size());
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::vector<Action>& actions = schedule.rows[r];
      while (rows[r].next < actions.size() && step(rows[r], actions[rows[r].next])) moved = true;
    }
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].next == schedule.rows[r].size()) continue;
    const Action& action = schedule.rows[r][rows[r].next];
    for (const Action& required : required_[slot(action.op)][index(action.stage)]) {
      if (end_[slot(required.op)][cell(required.stage, action.micro_batch)] != kNever) continue;
      blocked_.push_back({WorkerId(static_cast<int>(r)), rows[r].next, required});
      blocked_.back().waits_for.micro_batch = action.micro_batch;
      break;
    }
  }
}

bool ScheduleRun::step(Row& row, const Action& action) {
  const bool drops = action.op != Op::forward && !topology_.has_backward[index(action.stage)];
  if (!drops && action.op != Op::weight_grad) {
    int start = row.free_at;
    for (const Action& required : required_[slot(action.op)][index(action.stage)]) {
      const int end = end_[slot(required.op)][cell(required.stage, action.micro_batch)];
      if (end == kNever) return false;
      start = std::max(start, end);
    }
    post_[slot(action.op)][cell(action.stage, action.micro_batch)] = row.started;
    row.started = start;
    row.free_at = start + (action.op == Op::backward ? 2 : 1);
    end_[slot(action.op)][cell(action.stage, action.micro_batch)] = row.free_at;
  } else if (!drops && topology_.has_weight_grad[index(action.stage)]) {
    row.started = row.free_at++;
  }
  ++row.next;
  return true;
}

int ScheduleRun::lanes(Op op, StageId from, StageId to) const {
  const std::vector<int>&end = end_[slot(op)], &post = post_[slot(op)];
  std::vector<int> order;  // micro-batches in the order in which they are sent
  for (int m = 0; m < schedule_.micro_batches; ++m) {
    if (end[cell(from, m)] != kNever && end[cell(to, m)] != kNever) order.push_back(m);
  }
  if (order.empty()) return 1;
  const auto both_ascend = [&] {
    return std::is_sorted(order.begin(), order.end(),
                          [&](int a, int b) { return end[cell(from, a)] < end[cell(from, b)]; }) &&
           std::is_sorted(order.begin(), order.end(),
                          [&](int a, int b) { return end[cell(to, a)] < end[cell(to, b)]; });
  };
  if (!both_ascend()) {
    std::reverse(order.begin(), order.end());
    if (!both_ascend()) return schedule_.micro_batches;  // with a lane for each message any two orders fit together
  }
  std::size_t posted = 0, most = 1;
  for (std::size_t sent = 0; sent < order.size(); ++sent) {
    const int now = end[cell(from, order[sent])];
    // Strictly before: what happens at the same moment may have to happen afterwards.
    while (posted < sent && post[cell(to, order[posted])] < now) ++posted;
    most = std::max(most, sent - posted + 1);
  }
  return static_cast<int>(most);
}

}  // namespace lockstep
