// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "runtime/schedule/schedule_rules.hpp"
#include "runtime/schedule/schedule_run.hpp"
#include "runtime/schedule/validate.hpp"

namespace lockstep {

namespace {

/// Where each action stands: [stage][op][micro-batch], first occurrence.
struct Position {
  WorkerId worker;
  int at = -1;
  bool found() const { return at >= 0; }
};

class ScheduleRules {
 public:
  ScheduleRules(const Schedule& schedule, const Topology& topology, Mode mode)
      : schedule_(schedule),
        topology_(topology),
        mode_(mode),
        graph_(stage_graph(topology)),
        owner_(static_cast<std::size_t>(topology.stages)),
        latest_(owner_.size(), {-1, -1}) {}

  /// `as_schedule`: with the rules that only schedules have.
  std::vector<Finding> run(bool as_schedule) {
    positions_.resize(owner_.size() * kCount<Op> * static_cast<std::size_t>(schedule_.micro_batches));
    each(&ScheduleRules::place);
    if (as_schedule) {
      for (int w = 0; w < schedule_.workers(); ++w)
        if (schedule_.rows[static_cast<std::size_t>(w)].empty())
          add(WorkerId(w), -1, "empty", concat("worker ", w, " has no actions"));
      each(&ScheduleRules::row);
    }
    if (mode_ == Mode::train || mode_ == Mode::evaluate) {
      for (int s = 0; s < topology_.stages; ++s) {
        const TermRange run = micro_batches_of(StageId(s));
        for (int m = run.begin; m < run.end; ++m) missing(StageId(s), m);
      }
    }
    each(&ScheduleRules::order);
    each(&ScheduleRules::accumulation);
    const auto fatal = [](const Finding& finding) { return finding.fatal; };
    if (as_schedule && std::none_of(findings_.begin(), findings_.end(), fatal)) blocked();
    return std::move(findings_);
  }

  /// Everything else may index by stage and micro-batch.
  std::vector<Finding> ranges() {
    each(&ScheduleRules::range);
    std::size_t actions = 0;
    for (const std::vector<Action>& row : schedule_.rows) actions += row.size();
    if (schedule_.stages < 1 || schedule_.micro_batches < 1 || schedule_.workers() < 1) {
      add(WorkerId(), -1, "range",
          concat("got ", schedule_.workers(), " workers, ", schedule_.stages, " stages and ", schedule_.micro_batches,
                 " micro-batches, expected at least 1 of each"));
    } else if (static_cast<std::size_t>(schedule_.stages) * static_cast<std::size_t>(schedule_.micro_batches) >
               8 * actions + 4096) {  // far from complete: one finding instead of millions
      add(WorkerId(), -1, "missing",
          concat(schedule_.stages, " stages x ", schedule_.micro_batches, " micro-batches, but only ", actions,
                 " actions; every stage needs F and B for every micro-batch"));
    }
    return std::move(findings_);
  }

 private:
  void add(WorkerId worker, int position, const char* rule, const std::string& message) {
    findings_.push_back({worker, position, rule, message});
  }

  void each(void (ScheduleRules::*rule)(WorkerId, int, const Action&)) {
    for (std::size_t w = 0; w < schedule_.rows.size(); ++w)
      for (std::size_t i = 0; i < schedule_.rows[w].size(); ++i)
        (this->*rule)(WorkerId(static_cast<int>(w)), static_cast<int>(i), schedule_.rows[w][i]);
  }

  void range(WorkerId worker, int position, const Action& action) {
    if (!action.stage.valid() || action.stage.value() >= schedule_.stages)
      add(worker, position, "range", concat(to_text(action), ": stages are 0 to ", schedule_.stages - 1));
    if (action.micro_batch < 0 || action.micro_batch >= schedule_.micro_batches)
      add(worker, position, "range", concat(to_text(action), ": micro-batches are 0 to ", schedule_.micro_batches - 1));
  }

  Position& at(StageId stage, Op op, int micro_batch) {
    const std::size_t cell =
        (index(stage) * kCount<Op> + static_cast<std::size_t>(op)) * static_cast<std::size_t>(schedule_.micro_batches) +
        static_cast<std::size_t>(micro_batch);
    return positions_[cell];
  }

  /// Looks an action up; B stands for I and for W.
  Position find(const Action& action) {
    const Position exact = at(action.stage, action.op, action.micro_batch);
    const bool gradient = action.op == Op::input_grad || action.op == Op::weight_grad;
    return exact.found() || !gradient ? exact : at(action.stage, Op::backward, action.micro_batch);
  }

  TermRange micro_batches_of(StageId stage) const {
    return topology_.replicas.micro_batches_of(topology_.replica_of(stage), schedule_.micro_batches);
  }

  void place(WorkerId worker, int position, const Action& action) {
    if (const TermRange run = micro_batches_of(action.stage);
        action.micro_batch < run.begin || action.micro_batch >= run.end)
      add(worker, position, "stray",
          concat(to_text(action), ": the micro-batches of replica ", topology_.replica_of(action.stage), " are ",
                 run.begin, " to ", run.end - 1));
    Position& first = at(action.stage, action.op, action.micro_batch);
    if (!first.found()) {
      first = {worker, position};
      return;
    }
    add(worker, position, "twice",
        concat(to_text(action), " stands at ", position, " of worker ", worker, " and at ", first.at, " of worker ",
               first.worker));
  }

  void row(WorkerId worker, int position, const Action& action) {
    WorkerId& first = owner_[index(action.stage)];
    if (!first.valid()) first = worker;
    if (first == worker) return;
    add(worker, position, "row",
        concat(to_text(action), " is on worker ", worker, ", but stage ", action.stage, " belongs to worker ", first));
  }

  void missing(StageId stage, int m) {
    const Position full = at(stage, Op::backward, m);
    const auto lacks = [&](Op op) {
      if (!at(stage, op, m).found())
        add(WorkerId(), -1, "missing", concat(to_text({stage, op, m}), " is on no worker"));
    };
    lacks(Op::forward);
    if (mode_ != Mode::train || !topology_.has_backward[index(stage)]) return;
    const bool split = at(stage, Op::input_grad, m).found() || at(stage, Op::weight_grad, m).found();
    if (full.found() && split) {
      add(full.worker, full.at, "twice",
          concat(to_text({stage, Op::backward, m}), " stands beside an I or W of the same stage and micro-batch"));
    } else if (split) {
      lacks(Op::input_grad);
      if (topology_.has_weight_grad[index(stage)]) lacks(Op::weight_grad);
    } else {
      lacks(Op::backward);
    }
  }

  void order(WorkerId worker, int position, const Action& action) {
    for (const Action& required : required_before(action, graph_)) {
      const Position needed = find(required);
      if (!needed.found() || needed.worker != worker || needed.at < position) continue;
      add(worker, position, "order",
          concat(to_text(action), " stands before ",
                 to_text(schedule_.rows[index(worker)][static_cast<std::size_t>(needed.at)]), ", which it needs"));
    }
  }

  void accumulation(WorkerId worker, int position, const Action& action) {
    if (action.op == Op::forward) return;
    int before = -1;
    for (const Op op : {Op::input_grad, Op::weight_grad}) {
      if (action.op != op && action.op != Op::backward) continue;
      int& last = latest_[index(action.stage)][op == Op::input_grad ? 0 : 1];
      before = std::max(before, last);
      last = std::max(last, action.micro_batch);
    }
    if (before <= action.micro_batch) return;
    add(worker, position, "accumulation",
        concat(to_text(action), " stands after micro-batch ", before,
               " of its stage; gradients are summed in ascending order"));
    findings_.back().fatal = false;
  }

  void blocked() {
    const ScheduleRun run(schedule_, topology_);
    for (const ScheduleRun::Blocked& blocked : run.blocked()) {
      add(blocked.worker, static_cast<int>(blocked.position), "blocked",
          concat(to_text(schedule_.rows[index(blocked.worker)][blocked.position]), " waits for ",
                 to_text(blocked.waits_for), " of worker ", find(blocked.waits_for).worker,
                 ", which cannot run either"));
    }
  }

  const Schedule& schedule_;
  const Topology& topology_;
  const Mode mode_;
  const StageGraph graph_;
  std::vector<Finding> findings_;
  std::vector<Position> positions_;
  std::vector<WorkerId> owner_;             ///< by stage
  std::vector<std::array<int, 2>> latest_;  ///< by stage: micro-batch of the latest gradient of input, of weights
};

}  // namespace

std::vector<Finding> validate(const Schedule& schedule) {
  std::vector<Finding> out_of_range = ScheduleRules(schedule, {}, Mode::train).ranges();
  if (!out_of_range.empty()) return out_of_range;
  return ScheduleRules(schedule, chain_topology(schedule.stages), Mode::train).run(/*as_schedule=*/true);
}

std::vector<Finding> validate_computes(const Schedule& schedule, const Topology& topology, Mode mode) {
  return ScheduleRules(schedule, topology, mode).run(/*as_schedule=*/false);
}

}  // namespace lockstep
