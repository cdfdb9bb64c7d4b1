// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/program.hpp"

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/schedule/wiring.hpp"

namespace lockstep {

Topology chain_topology(int stages) {
  Topology topology;
  topology.stages = stages;
  for (int s = 0; s + 1 < stages; ++s) {
    topology.flows.push_back({StageId(s), StageId(s + 1), true});
    if (s == 0 && stages > 2) topology.flows.push_back({StageId(0), StageId(stages - 1), false});
  }
  topology.has_backward.assign(static_cast<std::size_t>(stages), true);
  topology.has_weight_grad.assign(static_cast<std::size_t>(stages), true);
  return topology;
}

namespace {

bool sends_gradient_back(const Topology& topology, const Flow& flow) {
  return flow.differentiable && topology.has_backward[index(flow.from)];
}

}  // namespace

StageGraph stage_graph(const Topology& topology) {
  StageGraph graph;
  graph.producers_of.resize(static_cast<std::size_t>(topology.stages));
  graph.consumers_of.resize(static_cast<std::size_t>(topology.stages));
  for (const Flow& flow : topology.flows) {
    graph.producers_of[index(flow.to)].push_back(flow.from);
    if (sends_gradient_back(topology, flow)) graph.consumers_of[index(flow.from)].push_back(flow.to);
  }
  for (auto* lists : {&graph.producers_of, &graph.consumers_of}) {
    for (std::vector<StageId>& list : *lists) std::sort(list.begin(), list.end());
  }
  return graph;
}

int lanes(const Flow& flow) {
  return flow.to.value() - flow.from.value();
}

std::vector<Edge> wire(const Topology& topology, const std::vector<WorkerId>& row_of_stage, int rows,
                       const std::vector<int>& lanes) {
  std::vector<Edge> edges;
  const auto add = [&edges](EdgeKind kind, int from, int to) -> Edge& {
    Edge edge;
    edge.kind = kind;
    edge.from = WorkerId(from);
    edge.to = WorkerId(to);
    return edges.emplace_back(edge);
  };
  const auto add_lanes = [&](EdgeKind kind, std::size_t flow, StageId from, StageId to) {
    const int from_row = row_of_stage[index(from)].value();
    const int to_row = row_of_stage[index(to)].value();
    for (int lane = 0; from_row != to_row && lane < lanes[flow]; ++lane) {
      Edge& edge = add(kind, from_row, to_row);
      edge.from_stage = from;
      edge.to_stage = to;
      edge.lane = lane;
    }
  };
  for (int row = 0; row + 1 < rows; ++row) add(EdgeKind::header, row, row + 1);
  for (std::size_t i = 0; i < topology.flows.size(); ++i) {
    add_lanes(EdgeKind::value, i, topology.flows[i].from, topology.flows[i].to);
  }
  for (std::size_t i = 0; i < topology.flows.size(); ++i) {
    const Flow& flow = topology.flows[i];
    if (sends_gradient_back(topology, flow)) add_lanes(EdgeKind::gradient, i, flow.to, flow.from);
  }
  for (std::size_t tie = 0; tie < topology.ties.size(); ++tie) {
    const std::vector<WorkerId> holders = rows_holding(topology.ties[tie], row_of_stage);
    for (const WorkerId from : holders) {
      for (const WorkerId to : holders) {
        if (from != to) add(EdgeKind::tie, from.value(), to.value()).tie = static_cast<int>(tie);
      }
    }
  }
  for (int row = 1; row < rows; ++row) add(EdgeKind::norm, row, 0);
  for (int row = 1; row < rows; ++row) add(EdgeKind::scale, 0, row);
  for (int row = 1; row < rows; ++row) add(EdgeKind::result, row, 0);
  return edges;
}

std::vector<WorkerId> rows_holding(const Tie& tie, const std::vector<WorkerId>& row_of_stage) {
  std::vector<WorkerId> rows;
  for (const StageId stage : tie.holders) rows.push_back(row_of_stage[index(stage)]);
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

const char* to_string(EdgeKind kind) {
  switch (kind) {
    case EdgeKind::header: return "header";
    case EdgeKind::value: return "value";
    case EdgeKind::gradient: return "gradient";
    case EdgeKind::tie: return "tie";
    case EdgeKind::norm: return "norm";
    case EdgeKind::scale: return "scale";
    case EdgeKind::result: return "result";
  }
  LOCKSTEP_CHECK(false, "edge kind ", static_cast<int>(kind));
  return "?";
}

const char* to_string(InstructionKind kind) {
  switch (kind) {
    case InstructionKind::make_header: return "make_header";
    case InstructionKind::post: return "post";
    case InstructionKind::receive: return "receive";
    case InstructionKind::send: return "send";
    case InstructionKind::compute: return "compute";
    case InstructionKind::tie_sum: return "tie_sum";
    case InstructionKind::norm_parts: return "norm_parts";
    case InstructionKind::norm_total: return "norm_total";
    case InstructionKind::update: return "update";
    case InstructionKind::amend: return "amend";
    case InstructionKind::wait_sends: return "wait_sends";
  }
  LOCKSTEP_CHECK(false, "instruction kind ", static_cast<int>(kind));
  return "?";
}

const char* to_string(Mode mode) {
  switch (mode) {
    case Mode::train: return "train";
    case Mode::evaluate: return "evaluate";
    case Mode::flush: return "flush";
    case Mode::stop: return "stop";
  }
  LOCKSTEP_CHECK(false, "mode ", static_cast<int>(mode));
  return "?";
}

std::vector<bool> recomputed(const Program& program) {
  const auto cell = [&program](const Action& action) {
    return index(action.stage) * static_cast<std::size_t>(program.micro_batches) +
           static_cast<std::size_t>(action.micro_batch);
  };
  const std::size_t cells = program.row_of_stage.size() * static_cast<std::size_t>(program.micro_batches);
  std::vector<bool> again(cells, program.recompute != Recompute::never);
  if (program.recompute != Recompute::except_last) return again;
  for (const std::vector<Instruction>& row : program.rows) {
    const Action* before = nullptr;
    for (const Instruction& instruction : row) {
      if (instruction.kind != InstructionKind::compute) continue;
      const Action& action = instruction.action;
      const bool backward = action.op == Op::backward || action.op == Op::input_grad;
      if (backward && before && *before == Action{action.stage, Op::forward, action.micro_batch})
        again[cell(action)] = false;
      before = &action;
    }
  }
  return again;
}

Schedule schedule_of(const Program& program) {
  Schedule schedule{program.name, program.topology.stages, program.micro_batches, {}, {}};
  for (const std::vector<Instruction>& row : program.rows) {
    std::vector<Action>& actions = schedule.rows.emplace_back();
    for (const Instruction& instruction : row) {
      if (instruction.kind == InstructionKind::compute) actions.push_back(instruction.action);
    }
  }
  return schedule;
}

namespace {

std::string describe_message(const Program& program, const Instruction& instruction) {
  const std::string kind = to_string(instruction.kind);
  if (!instruction.edge.valid() || index(instruction.edge) >= program.edges.size()) {
    return concat(kind, " on edge ", instruction.edge, ", which does not exist");
  }
  const Edge& edge = program.edges[index(instruction.edge)];
  std::string what = to_string(edge.kind);
  if (edge.from_stage.valid()) {
    what += concat(" ", edge.from_stage, "->", edge.to_stage, " m", instruction.action.micro_batch);
  }
  if (edge.tie >= 0) what += concat(" ", edge.tie);
  return concat(kind, " ", what, " (row ", edge.from, " -> ", edge.to, ")");
}

}  // namespace

std::string describe(const Program& program, const Instruction& instruction) {
  switch (instruction.kind) {
    case InstructionKind::post:
    case InstructionKind::receive:
    case InstructionKind::send: return describe_message(program, instruction);
    case InstructionKind::compute: return to_text(instruction.action);
    case InstructionKind::tie_sum: return concat("tie_sum ", instruction.tie);
    case InstructionKind::make_header:
    case InstructionKind::norm_parts:
    case InstructionKind::norm_total:
    case InstructionKind::update:
    case InstructionKind::amend:
    case InstructionKind::wait_sends: return to_string(instruction.kind);
  }
  LOCKSTEP_CHECK(false, "instruction kind ", static_cast<int>(instruction.kind));
  return "?";
}

}  // namespace lockstep
