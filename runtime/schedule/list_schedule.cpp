// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/list_schedule.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <queue>

#include "runtime/base/check.hpp"

namespace lockstep {

namespace {

constexpr double kUnknown = std::numeric_limits<double>::infinity();

class ListScheduler {
 public:
  ListScheduler(const Topology& topology, const Costs& costs, const std::vector<WorkerId>& row_of_stage,
                int micro_batches, const ListRule& rule)
      : topology_(topology),
        costs_(costs),
        row_of_stage_(row_of_stage),
        micro_batches_(micro_batches),
        rule_(rule),
        stages_(static_cast<std::size_t>(topology.stages)) {
    const int rows = std::max_element(row_of_stage.begin(), row_of_stage.end())->value() + 1;
    rows_.resize(static_cast<std::size_t>(rows));
    schedule_ = {"auto", topology.stages, micro_batches, {}, {}};
    schedule_.rows.resize(rows_.size());
    const StageGraph graph = stage_graph(topology);
    const double per_worker = static_cast<double>(topology.stages) / rows;
    for (int s = 0; s < topology.stages; ++s) {
      Stage& stage = stages_[static_cast<std::size_t>(s)];
      const double alive = std::ceil(rule.alive * (topology.stages - s) / per_worker);  // may be infinite
      stage.may_be_alive = static_cast<int>(std::clamp(alive, 1.0, std::max(1.0, static_cast<double>(micro_batches))));
      rows_[index(row_of_stage[static_cast<std::size_t>(s)])].stages.emplace_back(s);
      for (const Op op : {Op::forward, Op::input_grad, Op::weight_grad}) {
        Queue& queue = stage.queues[slot(op)];
        queue.end.assign(static_cast<std::size_t>(micro_batches), kUnknown);
        for (const Action& required : required_before({StageId(s), op, 0}, graph)) {
          queue.required.push_back({required, transfer_us(required, StageId(s))});
          stages_[index(required.stage)].queues[slot(required.op)].wakes.push_back(StageId(s));
        }
      }
    }
  }

  Schedule run() {
    for (std::size_t row = 0; row < rows_.size(); ++row) events_.push({0, static_cast<int>(row)});
    while (!events_.empty()) {
      const auto [now, row] = events_.top();
      events_.pop();
      decide(WorkerId(row), now);
    }
    for (const Stage& stage : stages_) {
      LOCKSTEP_CHECK(stage.queues[slot(Op::weight_grad)].next == micro_batches_, "an unfinished list schedule");
    }
    return std::move(schedule_);
  }

 private:
  struct Required {
    Action action;  ///< of micro-batch 0: all are alike
    double transfer_us = 0;
  };
  /// The actions of one op of one stage, which run in ascending order.
  struct Queue {
    int next = 0;
    std::vector<double> end;  ///< by micro-batch
    std::vector<Required> required;
    std::vector<StageId> wakes;  ///< the stages that wait for these
  };
  struct Stage {
    std::array<Queue, 3> queues;
    int may_be_alive = 1;
  };
  struct Row {
    std::vector<StageId> stages;
    double free_at = 0;
    int waiting = 0;  ///< W whose I has run
  };
  struct Event {
    double time;
    int row;
    bool operator<(const Event& other) const {  // the earliest on top
      return time != other.time ? time > other.time : row > other.row;
    }
  };

  static std::size_t slot(Op op) { return op == Op::forward ? 0 : op == Op::weight_grad ? 2 : 1; }

  double transfer_us(const Action& required, StageId reader) const {
    const WorkerId from_row = row_of_stage_[index(required.stage)], to_row = row_of_stage_[index(reader)];
    if (from_row == to_row) return 0;
    double bytes = 0;
    for (std::size_t i = 0; i < topology_.flows.size() && !costs_.flow_bytes.empty(); ++i) {
      const auto [from, to] = std::minmax(required.stage, reader);
      if (topology_.flows[i].from == from && topology_.flows[i].to == to) bytes = costs_.flow_bytes[i];
    }
    return costs_.link(from_row, to_row).transfer_us(bytes);
  }

  double duration_us(const Action& action) const {
    const StageCost& cost = costs_.stages[index(action.stage)];
    switch (action.op) {
      case Op::forward: return cost.forward_us;
      case Op::backward:
      case Op::input_grad: return topology_.has_backward[index(action.stage)] ? cost.input_grad_us : 0;
      case Op::weight_grad: return topology_.has_weight_grad[index(action.stage)] ? cost.weight_grad_us : 0;
    }
    return 0;
  }

  /// When the next action of this op can start at the earliest; kUnknown when something it needs has not been planned.
  double ready_us(StageId id, Op op) const {
    const Stage& stage = stages_[index(id)];
    const Queue& queue = stage.queues[slot(op)];
    if (queue.next == micro_batches_) return kUnknown;
    if (op == Op::forward && queue.next - stage.queues[slot(Op::input_grad)].next >= stage.may_be_alive) {
      return kUnknown;
    }
    double ready = 0;
    for (const Required& required : queue.required) {
      const Queue& needed = stages_[index(required.action.stage)].queues[slot(required.action.op)];
      ready = std::max(ready, needed.end[static_cast<std::size_t>(queue.next)] + required.transfer_us);
    }
    return ready;
  }

  Action next_of(StageId stage, Op op) const { return {stage, op, stages_[index(stage)].queues[slot(op)].next}; }

  /// Of two ready actions: the wanted op; then of I the older micro-batch, of F the deeper stage, which is nearer to a
  /// backward.
  bool better(const Action& a, const Action& b) const {
    if (a.op != b.op) return (a.op == Op::input_grad) == rule_.gradients_first;
    if (a.op == Op::input_grad && a.micro_batch != b.micro_batch) return a.micro_batch < b.micro_batch;
    return a.stage > b.stage;
  }

  void decide(WorkerId id, double now) {
    Row& row = rows_[index(id)];
    if (row.free_at > now) return;  // the end of what it does is an event of its own
    std::optional<Action> best, oldest_w;
    double next_ready = kUnknown;
    for (const StageId stage : row.stages) {
      for (const Op op : {Op::forward, Op::input_grad}) {
        const double ready = ready_us(stage, op);
        if (ready > now) {
          next_ready = std::min(next_ready, ready);
        } else if (const Action action = next_of(stage, op); !best || better(action, *best)) {
          best = action;
        }
      }
      if (ready_us(stage, Op::weight_grad) > now) continue;
      const Action action = next_of(stage, Op::weight_grad);
      if (!oldest_w || action.micro_batch < oldest_w->micro_batch) oldest_w = action;
    }
    const bool too_many = oldest_w && row.waiting > rule_.waiting;
    if (best && !too_many) {
      start(id, *best, now);
    } else if (oldest_w && (too_many || next_ready - now >= rule_.gap * duration_us(*oldest_w))) {
      start(id, *oldest_w, now);
    } else if (next_ready != kUnknown) {
      events_.push({next_ready, id.value()});
    }
  }

  void start(WorkerId id, const Action& action, double now) {
    Row& row = rows_[index(id)];
    Queue& queue = stages_[index(action.stage)].queues[slot(action.op)];
    row.free_at = now + duration_us(action);
    queue.end[static_cast<std::size_t>(queue.next++)] = row.free_at;
    if (action.op == Op::input_grad) ++row.waiting;
    if (action.op == Op::weight_grad) --row.waiting;
    schedule_.rows[index(id)].push_back(action);
    events_.push({row.free_at, id.value()});
    for (const StageId stage : queue.wakes) {
      const WorkerId other = row_of_stage_[index(stage)];
      if (other != id) events_.push({row.free_at + transfer_us(action, stage), other.value()});
    }
  }

  const Topology& topology_;
  const Costs& costs_;
  const std::vector<WorkerId>& row_of_stage_;
  const int micro_batches_;
  const ListRule& rule_;
  Schedule schedule_;
  std::vector<Stage> stages_;
  std::vector<Row> rows_;
  std::priority_queue<Event> events_;
};

}  // namespace

std::string ListRule::text() const {
  return concat(gradients_first ? "backwards first, " : "forwards first, ",
                std::isinf(alive) ? "any number of forwards alive" : concat(alive, " x the forwards of 1f1b alive"),
                waiting == 0 ? std::string(", W behind its I")
                             : concat(", W in gaps of at least ", gap, " W, at most ", waiting, " waiting"));
}

Schedule list_schedule(const Topology& topology, const Costs& costs, const std::vector<WorkerId>& row_of_stage,
                       int micro_batches, const ListRule& rule) {
  return ListScheduler(topology, costs, row_of_stage, micro_batches, rule).run();
}

}  // namespace lockstep
