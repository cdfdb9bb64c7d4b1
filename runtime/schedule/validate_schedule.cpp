// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "runtime/schedule/validate.hpp"
#include "runtime/schedule/wiring.hpp"

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
  explicit ScheduleRules(const Schedule& schedule) : schedule_(schedule) {}

  std::vector<Finding> run() {
    if (!ranges()) return findings_;
    place();
    rows();
    missing();
    order();
    accumulation();
    if (std::none_of(findings_.begin(), findings_.end(), [](const Finding& finding) { return finding.fatal; }))
      blocked();
    return findings_;
  }

 private:
  void add(WorkerId worker, int position, const char* rule, const std::string& message) {
    findings_.push_back({worker, position, rule, message});
  }

  /// Everything after this may index by stage and micro-batch.
  bool ranges() {
    std::size_t actions = 0;
    for (int w = 0; w < schedule_.workers(); ++w) {
      const std::vector<Action>& row = schedule_.rows[static_cast<std::size_t>(w)];
      actions += row.size();
      for (std::size_t i = 0; i < row.size(); ++i) range(WorkerId(w), static_cast<int>(i), row[i]);
    }
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
    return findings_.empty();
  }

  void range(WorkerId worker, int position, const Action& action) {
    if (!action.stage.valid() || action.stage.value() >= schedule_.stages) {
      add(worker, position, "range", concat(to_text(action), ": stages are 0 to ", schedule_.stages - 1));
    }
    if (action.micro_batch < 0 || action.micro_batch >= schedule_.micro_batches) {
      add(worker, position, "range", concat(to_text(action), ": micro-batches are 0 to ", schedule_.micro_batches - 1));
    }
  }

  Position& at(StageId stage, Op op, int micro_batch) {
    const std::size_t cell =
        (index(stage) * 4 + static_cast<std::size_t>(op)) * static_cast<std::size_t>(schedule_.micro_batches) +
        static_cast<std::size_t>(micro_batch);
    return positions_[cell];
  }

  /// Looks an action up; B stands for I and for W.
  Position find(const Action& action) {
    const Position exact = at(action.stage, action.op, action.micro_batch);
    const bool gradient = action.op == Op::input_grad || action.op == Op::weight_grad;
    return exact.found() || !gradient ? exact : at(action.stage, Op::backward, action.micro_batch);
  }

  void place() {
    positions_.resize(static_cast<std::size_t>(schedule_.stages) * 4 *
                      static_cast<std::size_t>(schedule_.micro_batches));
    for (int w = 0; w < schedule_.workers(); ++w) {
      const std::vector<Action>& row = schedule_.rows[static_cast<std::size_t>(w)];
      if (row.empty()) add(WorkerId(w), -1, "empty", concat("worker ", w, " has no actions"));
      for (std::size_t i = 0; i < row.size(); ++i) {
        Position& position = at(row[i].stage, row[i].op, row[i].micro_batch);
        if (position.found()) {
          add(WorkerId(w), static_cast<int>(i), "twice",
              concat(to_text(row[i]), " stands at ", i, " of worker ", w, " and at ", position.at, " of worker ",
                     position.worker));
        } else {
          position = {WorkerId(w), static_cast<int>(i)};
        }
      }
    }
  }

  void rows() {
    std::vector<WorkerId> owner(static_cast<std::size_t>(schedule_.stages));
    for (int w = 0; w < schedule_.workers(); ++w) {
      const std::vector<Action>& row = schedule_.rows[static_cast<std::size_t>(w)];
      for (std::size_t i = 0; i < row.size(); ++i) {
        WorkerId& first = owner[index(row[i].stage)];
        if (!first.valid()) first = WorkerId(w);
        if (first.value() == w) continue;
        add(WorkerId(w), static_cast<int>(i), "row",
            concat(to_text(row[i]), " is on worker ", w, ", but stage ", row[i].stage, " belongs to worker ", first));
      }
    }
  }

  void missing() {
    for (int s = 0; s < schedule_.stages; ++s) {
      for (int m = 0; m < schedule_.micro_batches; ++m) missing(StageId(s), m);
    }
  }

  void missing(StageId stage, int m) {
    const Position full = at(stage, Op::backward, m);
    const auto lacks = [&](Op op) {
      if (!at(stage, op, m).found())
        add(WorkerId(), -1, "missing", concat(to_text({stage, op, m}), " is on no worker"));
    };
    lacks(Op::forward);
    const bool split = at(stage, Op::input_grad, m).found() || at(stage, Op::weight_grad, m).found();
    if (full.found() && split) {
      add(full.worker, full.at, "twice",
          concat(to_text({stage, Op::backward, m}), " stands beside an I or W of the same stage and micro-batch"));
    } else if (split) {
      lacks(Op::input_grad);
      lacks(Op::weight_grad);
    } else {
      lacks(Op::backward);
    }
  }

  void order() {
    const StageGraph graph = stage_graph(chain_topology(schedule_.stages));
    for (int w = 0; w < schedule_.workers(); ++w) {
      const std::vector<Action>& row = schedule_.rows[static_cast<std::size_t>(w)];
      for (std::size_t i = 0; i < row.size(); ++i) {
        for (const Action& required : required_before(row[i], graph)) {
          const Position position = find(required);
          if (!position.found() || position.worker.value() != w || position.at < static_cast<int>(i)) continue;
          add(WorkerId(w), static_cast<int>(i), "order",
              concat(to_text(row[i]), " stands before ", to_text(row[static_cast<std::size_t>(position.at)]),
                     ", which it needs"));
        }
      }
    }
  }

  void accumulation() {
    // [stage][gradient of input, of weights]: the latest micro-batch.
    std::vector<std::array<int, 2>> latest(static_cast<std::size_t>(schedule_.stages), {-1, -1});
    for (int w = 0; w < schedule_.workers(); ++w) {
      const std::vector<Action>& row = schedule_.rows[static_cast<std::size_t>(w)];
      for (std::size_t i = 0; i < row.size(); ++i) {
        if (row[i].op == Op::forward) continue;
        int before = -1;
        for (const Op op : {Op::input_grad, Op::weight_grad}) {
          if (row[i].op != op && row[i].op != Op::backward) continue;
          int& last = latest[index(row[i].stage)][op == Op::input_grad ? 0 : 1];
          before = std::max(before, last);
          last = std::max(last, row[i].micro_batch);
        }
        if (before <= row[i].micro_batch) continue;
        add(WorkerId(w), static_cast<int>(i), "accumulation",
            concat(to_text(row[i]), " stands after micro-batch ", before,
                   " of its stage; gradients are summed in ascending order"));
        findings_.back().fatal = false;
      }
    }
  }

  /// Runs every row as far as required_before() lets it.
  void blocked() {
    const StageGraph graph = stage_graph(chain_topology(schedule_.stages));
    std::vector<std::size_t> next(schedule_.rows.size(), 0);
    const auto waits_for = [&](std::size_t w) -> Action {
      for (const Action& required : required_before(schedule_.rows[w][next[w]], graph)) {
        const Position position = find(required);
        if (static_cast<std::size_t>(position.at) >= next[index(position.worker)]) return required;
      }
      return {};
    };
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t w = 0; w < next.size(); ++w) {
        for (; next[w] < schedule_.rows[w].size() && !waits_for(w).stage.valid(); ++next[w]) moved = true;
      }
    }
    for (std::size_t w = 0; w < next.size(); ++w) {
      if (next[w] == schedule_.rows[w].size()) continue;
      const Action required = waits_for(w);
      add(WorkerId(static_cast<int>(w)), static_cast<int>(next[w]), "blocked",
          concat(to_text(schedule_.rows[w][next[w]]), " waits for ", to_text(required), " of worker ",
                 find(required).worker, ", which cannot run either"));
    }
  }

  const Schedule& schedule_;
  std::vector<Finding> findings_;
  std::vector<Position> positions_;
};

}  // namespace

std::vector<Finding> validate(const Schedule& schedule) {
  return ScheduleRules(schedule).run();
}

}  // namespace lockstep
