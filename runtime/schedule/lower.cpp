// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/lower.hpp"

#include "runtime/base/check.hpp"
#include "runtime/schedule/lanes.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/schedule/wiring.hpp"

namespace lockstep {

namespace {

void check_topology(const Topology& topology) {
  const auto stages = static_cast<std::size_t>(topology.stages);
  LOCKSTEP_CHECK(topology.has_backward.size() == stages && topology.has_weight_grad.size() == stages, "topology sizes");
  for (const Flow& flow : topology.flows) {
    LOCKSTEP_CHECK(flow.from.valid() && flow.from < flow.to && flow.to.value() < topology.stages, "flow ", flow.from,
                   "->", flow.to);
    LOCKSTEP_CHECK(
        !flow.differentiable || !topology.has_backward[index(flow.from)] || topology.has_backward[index(flow.to)],
        "flow ", flow.from, "->", flow.to, " needs a gradient from a stage without backward");
  }
}

void check_schedule(const Schedule& schedule, const Topology& topology) {
  if (schedule.stages != topology.stages) {
    throw ScheduleError(concat("schedule ", schedule.name, " has ", schedule.stages, " stages, the model was cut into ",
                               topology.stages));
  }
  for (int worker = 0; worker < schedule.workers(); ++worker) {
    for (const Action& action : schedule.rows[static_cast<std::size_t>(worker)]) {
      if (action.micro_batch < 0 || action.micro_batch >= schedule.micro_batches) {
        throw ScheduleError(concat("schedule ", schedule.name, ": worker ", worker, " has ", to_text(action),
                                   ", but micro-batches are 0 to ", schedule.micro_batches - 1));
      }
    }
  }
}

/// Writes one program. Each member appends one part of the row's shape in lower.hpp.
class Lowering {
 public:
  Lowering(const Schedule& schedule, const Topology& topology, const LowerOptions& options)
      : schedule_(schedule),
        program_(make_program(schedule, topology, options)),
        wiring_(program_.topology, program_.edges, program_.row_of_stage) {}

  Program run() {
    for (int row = 0; row < program_.workers(); ++row) {
      row_ = WorkerId(row);
      out_ = &program_.rows[index(row_)];
      lower_row();
    }
    return std::move(program_);
  }

 private:
  static Program make_program(const Schedule& schedule, const Topology& topology, const LowerOptions& options) {
    Program program;
    program.name =
        concat(schedule.name, " ", schedule.workers(), "x", schedule.micro_batches, " ", to_string(options.mode));
    program.topology = topology;
    program.row_of_stage = row_of_stage(schedule);
    program.lanes = options.lanes.empty() ? lanes_of(schedule, topology) : options.lanes;
    LOCKSTEP_CHECK(program.lanes.size() == topology.flows.size(), "lanes of ", program.lanes.size(), " flows");
    program.edges = wire(topology, program.row_of_stage, schedule.workers(), program.lanes);
    program.rows.resize(schedule.rows.size());
    program.micro_batches = schedule.micro_batches;
    program.mode = options.mode;
    program.clip = options.clip;
    program.post_validation = options.clip && options.post_validation;
    program.recompute = options.recompute;
    return program;
  }

  void lower_row() {
    const Mode mode = program_.mode;
    header();
    if (mode != Mode::stop) last_result();
    if (mode == Mode::train || mode == Mode::evaluate) actions();
    if (mode == Mode::train) {
      ties();
      norm();
      local(program_.post_validation ? InstructionKind::amend : InstructionKind::update);
    }
    if (mode != Mode::stop) each_edge(InstructionKind::receive, EdgeKind::result);
    local(InstructionKind::wait_sends);
  }

  void header() {
    if (row_.value() == 0) local(InstructionKind::make_header);
    each_edge(InstructionKind::post, EdgeKind::header);
    each_edge(InstructionKind::receive, EdgeKind::header);
    each_edge(InstructionKind::send, EdgeKind::header);
  }

  void last_result() {
    each_edge(InstructionKind::send, EdgeKind::result);
    each_edge(InstructionKind::post, EdgeKind::result);
  }

  void actions() {
    std::vector<Action> kept;
    for (const Action& action : schedule_.rows[index(row_)]) {
      if (keeps(action)) kept.push_back(action);
    }
    std::vector<EdgeMessage> inputs;
    if (!kept.empty()) inputs = wiring_.inputs(kept.front());
    messages(InstructionKind::post, inputs);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      messages(InstructionKind::receive, inputs);
      if (i + 1 < kept.size()) {
        inputs = wiring_.inputs(kept[i + 1]);
        messages(InstructionKind::post, inputs);
      }
      Instruction compute;
      compute.action = kept[i];
      out_->push_back(compute);
      messages(InstructionKind::send, wiring_.outputs(kept[i]));
    }
  }

  bool keeps(const Action& action) const {
    const Topology& topology = program_.topology;
    switch (action.op) {
      case Op::forward: return true;
      case Op::backward:
      case Op::input_grad: return program_.mode == Mode::train && topology.has_backward[index(action.stage)];
      case Op::weight_grad: return program_.mode == Mode::train && topology.has_weight_grad[index(action.stage)];
    }
    LOCKSTEP_CHECK(false, "op ", static_cast<int>(action.op));
    return false;
  }

  void ties() {
    for (int tie = 0; tie < static_cast<int>(program_.topology.ties.size()); ++tie) {
      const std::vector<WorkerId> holders =
          rows_holding(program_.topology.ties[static_cast<std::size_t>(tie)], program_.row_of_stage);
      bool held = false;
      for (const WorkerId holder : holders) held = held || holder == row_;
      if (!held) continue;
      each_edge(InstructionKind::post, EdgeKind::tie, tie);
      each_edge(InstructionKind::send, EdgeKind::tie, tie);
      each_edge(InstructionKind::receive, EdgeKind::tie, tie);
      local(InstructionKind::tie_sum, tie);
    }
  }

  void norm() {
    if (program_.clip) each_edge(InstructionKind::post, EdgeKind::norm);
    local(InstructionKind::norm_parts);
    if (!program_.clip) return;
    each_edge(InstructionKind::send, EdgeKind::norm);
    if (program_.post_validation) local(InstructionKind::update);
    each_edge(InstructionKind::receive, EdgeKind::norm);
    if (row_.value() == 0) local(InstructionKind::norm_total);
    each_edge(InstructionKind::send, EdgeKind::scale);
    each_edge(InstructionKind::post, EdgeKind::scale);
    each_edge(InstructionKind::receive, EdgeKind::scale);
  }

  void local(InstructionKind kind, int tie = -1) {
    Instruction instruction;
    instruction.kind = kind;
    instruction.tie = tie;
    out_->push_back(instruction);
  }

  void messages(InstructionKind kind, const std::vector<EdgeMessage>& list) {
    for (const EdgeMessage& message : list) {
      Instruction instruction;
      instruction.kind = kind;
      instruction.edge = message.edge;
      instruction.action = message.action;
      out_->push_back(instruction);
    }
  }

  /// `kind` on every control edge of `edge_kind` that this row sends (send) or receives on (post, receive).
  void each_edge(InstructionKind kind, EdgeKind edge_kind, int tie = -1) {
    for (std::size_t i = 0; i < program_.edges.size(); ++i) {
      const Edge& edge = program_.edges[i];
      const WorkerId end = kind == InstructionKind::send ? edge.from : edge.to;
      if (edge.kind != edge_kind || edge.tie != tie || end != row_) continue;
      Instruction instruction;
      instruction.kind = kind;
      instruction.edge = EdgeId(static_cast<int>(i));
      out_->push_back(instruction);
    }
  }

  const Schedule& schedule_;
  Program program_;
  Wiring wiring_;
  WorkerId row_;
  std::vector<Instruction>* out_ = nullptr;
};

}  // namespace

Program lower(const Schedule& schedule, const Topology& topology, const LowerOptions& options) {
  check_topology(topology);
  check_schedule(schedule, topology);
  return Lowering(schedule, topology, options).run();
}

}  // namespace lockstep
