// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/lower.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "runtime/base/check.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

namespace {

/// Which messages a compute waits for and which it makes: required_before() translated to the edges of the table.
class Around {
 public:
  Around(const Program& program, const std::vector<int>& first_edge) {
    for (auto& by_op : parts_)
      for (ByStage& by_stage : by_op) by_stage.resize(program.wiring.row_of_stage.size());
    const StageGraph graph = stage_graph(program.topology);
    std::size_t served = 0, needed = 0;
    for (std::size_t e = 0; e < program.exchanges.size(); ++e) {
      const Exchange& exchange = program.exchanges[e];
      if (!exchange.per_micro_batch() || exchange.from == exchange.to) continue;
      const Op op = exchange.kind == EdgeKind::value ? Op::forward : Op::input_grad;
      const StageId from = exchange.stages.front(), to = exchange.stages.back();
      const std::vector<Action> required = required_before({to, op, 0}, graph);
      const Action made{from, op, 0};
      LOCKSTEP_CHECK(std::find(required.begin(), required.end(), made) != required.end(), to_string(exchange.kind), " ",
                     from, "->", to, ", which nobody needs");
      for (const Phase& phase : exchange.phases)
        parts_[at(phase.place)][slot(op)][index(phase.place == Place::maker ? from : to)].push_back(
            {phase.what, first_edge[e], exchange.lanes, made});
      ++served;
    }
    const std::vector<WorkerId>& row_of = program.wiring.row_of_stage;
    for (std::size_t reader = 0; reader < row_of.size(); ++reader)
      for (const Op op : {Op::forward, Op::input_grad})
        for (const Action& required : required_before({StageId(static_cast<int>(reader)), op, 0}, graph))
          needed += row_of[index(required.stage)] != row_of[reader] ? 1 : 0;
    LOCKSTEP_CHECK(served == needed, served, " exchanges of values and gradients, expected ", needed);
  }

  /// Appends what stands there. B counts as I; W has no messages.
  void append(Place place, const Action& action, std::vector<Instruction>& row) const {
    if (action.op == Op::weight_grad) return;
    for (const Part& part : parts_[at(place)][slot(action.op)][index(action.stage)])
      row.push_back({part.what,
                     EdgeId(part.first_edge + action.micro_batch % part.lanes),
                     {part.maker.stage, part.maker.op, action.micro_batch}});
  }

 private:
  struct Part {
    InstructionKind what;
    int first_edge;
    int lanes;
    Action maker;  ///< of micro-batch 0
  };
  using ByStage = std::vector<std::vector<Part>>;

  static std::size_t at(Place place) { return static_cast<std::size_t>(place); }
  static std::size_t slot(Op op) { return op == Op::forward ? 0 : 1; }

  std::array<std::array<ByStage, 2>, kCount<Place>> parts_;
};

/// Writes the rows of one program.
class Lowering {
 public:
  using Rows = std::vector<std::vector<Instruction>>;

  Lowering(const Program& program, const Schedule& schedule)
      : program_(program), schedule_(schedule), first_edge_(first_edges(program)), around_(program, first_edge_) {}

  Rows run() {
    rows_.resize(schedule_.rows.size());
    at(Place::begin);
    for (std::size_t row = 0; row < rows_.size(); ++row) computes(WorkerId(static_cast<int>(row)));
    for (int place = static_cast<int>(Place::gradients); place < kCount<Place>; ++place) at(static_cast<Place>(place));
    for (std::vector<Instruction>& row : rows_) row.push_back({InstructionKind::wait_sends});
    return std::move(rows_);
  }

 private:
  /// The first edge of each exchange, and the number of all.
  static std::vector<int> first_edges(const Program& program) {
    std::vector<int> first = {0};
    for (const Exchange& exchange : program.exchanges)
      first.push_back(first.back() + static_cast<int>(wire({exchange}).size()));
    return first;
  }

  /// `row`: on this one alone.
  void at(Place place, std::size_t e, WorkerId row = {}) {
    for (const Phase& phase : program_.exchanges[e].phases)
      if (phase.place == place) append(e, phase, row);
  }
  void at(Place place) {
    for (std::size_t e = 0; e < program_.exchanges.size(); ++e) at(place, e);
  }

  void append(std::size_t e, const Phase& phase, WorkerId only) {
    const auto add = [&](WorkerId row, EdgeId edge, int item) {
      if (!only.valid() || row == only) rows_[index(row)].push_back({phase.what, edge, {}, item});
    };
    if (!is_message(phase.what)) {
      for (const WorkerId row : phase.on) add(row, {}, program_.exchanges[e].item);
      return;
    }
    for (int id = first_edge_[e]; id < first_edge_[e + 1]; ++id) {
      const Edge& edge = program_.edges[static_cast<std::size_t>(id)];
      add(phase.what == InstructionKind::send ? edge.from : edge.to, EdgeId(id), -1);
    }
  }

  void computes(WorkerId id) {
    std::vector<Action> kept;
    for (const Action& action : schedule_.rows[index(id)])
      if (keeps(action)) kept.push_back(action);
    const Behind behind = behind_computes(kept);
    std::vector<Instruction>& row = rows_[index(id)];
    if (!kept.empty()) around_.append(Place::ahead, kept.front(), row);
    const auto append_behind = [&](std::size_t actions) {
      if (const auto found = behind.find(actions); found != behind.end())
        for (const auto& [place, exchange] : found->second) at(place, exchange, id);
    };
    append_behind(0);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      around_.append(Place::reader, kept[i], row);
      if (i + 1 < kept.size()) around_.append(Place::ahead, kept[i + 1], row);
      row.push_back({InstructionKind::compute, {}, kept[i]});
      around_.append(Place::maker, kept[i], row);
      append_behind(i + 1);
    }
  }

  bool keeps(const Action& action) const {
    const bool trains = program_.mode == Mode::train;
    switch (action.op) {
      case Op::forward: return trains || program_.mode == Mode::evaluate;
      case Op::backward:
      case Op::input_grad: return trains && program_.topology.has_backward[index(action.stage)];
      case Op::weight_grad: return trains && program_.topology.has_weight_grad[index(action.stage)];
    }
    LOCKSTEP_CHECK(false, "op ", static_cast<int>(action.op));
    return false;
  }

  /// What stands between computes, though it is of no micro-batch, by the number of the row's actions in front of it:
  /// by place, then exchange.
  using Behind = std::map<std::size_t, std::set<std::pair<Place, std::size_t>>>;
  Behind behind_computes(const std::vector<Action>& actions) const {
    Behind found;
    for (std::size_t e = 0; e < program_.exchanges.size(); ++e) {
      const Exchange& exchange = program_.exchanges[e];
      const auto has = [&](Place place) {
        return std::any_of(exchange.phases.begin(), exchange.phases.end(),
                           [&](const Phase& phase) { return phase.place == place; });
      };
      if (has(Place::first_compute)) found[std::min<std::size_t>(actions.size(), 1)].emplace(Place::first_compute, e);
      if (!has(Place::last_weight_grad)) continue;
      const auto last = std::find_if(actions.rbegin(), actions.rend(), [&](const Action& action) {
        return (action.op == Op::backward || action.op == Op::weight_grad) &&
               std::find(exchange.stages.begin(), exchange.stages.end(), action.stage) != exchange.stages.end();
      });
      found[last == actions.rend() ? actions.size() : static_cast<std::size_t>(actions.rend() - last)].emplace(
          Place::last_weight_grad, e);
    }
    return found;
  }

  const Program& program_;
  const Schedule& schedule_;
  const std::vector<int> first_edge_;
  const Around around_;
  Rows rows_;
};

/// Whether the rows of the schedule are those of the wiring.
void check_wiring(const Schedule& schedule, const Topology& topology, const Wiring& wiring) {
  LOCKSTEP_CHECK(wiring.row_of_stage.size() == static_cast<std::size_t>(topology.stages) &&
                     wiring.lanes.size() == topology.flows.size() && wiring.rows == schedule.workers(),
                 "a wiring of ", wiring.rows, " rows, ", wiring.row_of_stage.size(), " stages and ",
                 wiring.lanes.size(), " flows");
  check_ranges(schedule);
  for (int worker = 0; worker < schedule.workers(); ++worker) {
    for (const Action& action : schedule.rows[static_cast<std::size_t>(worker)]) {
      if (const WorkerId row = wiring.row_of_stage[index(action.stage)]; row.value() != worker)
        throw ScheduleError(concat("schedule ", schedule.name, ": worker ", worker, " has ", to_text(action),
                                   ", but stage ", action.stage, " belongs to worker ", row));
    }
  }
}

}  // namespace

std::vector<std::vector<Instruction>> rows_of(const Program& program, const Schedule& schedule) {
  return Lowering(program, schedule).run();
}

Program lower(const Schedule& schedule, const Topology& topology, const Wiring& wiring, const LowerOptions& options) {
  check_fits(schedule, topology);
  check_wiring(schedule, topology, wiring);
  Program program;
  program.name =
      concat(schedule.name, " ", schedule.workers(), "x", schedule.micro_batches, " ", to_string(options.mode));
  program.topology = topology;
  program.wiring = wiring;
  program.micro_batches = schedule.micro_batches;
  program.mode = options.mode;
  program.clip = options.clip;
  program.post_validation = options.clip && options.post_validation;
  program.recompute = options.recompute;
  program.exchanges = exchanges_of(topology, wiring, options.mode, options.clip, options.post_validation);
  program.edges = wire(program.exchanges);
  program.rows = rows_of(program, schedule);
  return program;
}

Program lower(const Schedule& schedule, const Topology& topology, const LowerOptions& options) {
  return lower(schedule, topology, wiring_of(schedule, topology), options);
}

}  // namespace lockstep
