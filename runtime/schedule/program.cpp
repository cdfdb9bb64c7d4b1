// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/program.hpp"

#include <algorithm>

#include "runtime/base/error.hpp"

namespace lockstep {

std::vector<Edge> wire(const std::vector<Exchange>& exchanges) {
  std::vector<Edge> edges;
  for (const Exchange& exchange : exchanges) {
    const auto add = [&](WorkerId from, WorkerId to) {
      for (int lane = 0; from != to && lane < exchange.lanes; ++lane) {
        Edge& edge = edges.emplace_back(Edge{exchange.kind, from, to, {}, {}, lane, exchange.item});
        if (!exchange.per_micro_batch()) continue;
        edge.from_stage = exchange.stages.front();
        edge.to_stage = exchange.stages.back();
      }
    };
    for (const auto& [from, to] : exchange.pairs) add(from, to);
    if (!exchange.pairs.empty()) continue;
    for (const WorkerId from : exchange.from)
      for (const WorkerId to : exchange.to) add(from, to);
  }
  return edges;
}

std::vector<bool> recomputed(const Program& program) {
  const auto cell = [&program](const Action& action) {
    return index(action.stage) * static_cast<std::size_t>(program.micro_batches) +
           static_cast<std::size_t>(action.micro_batch);
  };
  const std::size_t cells = program.wiring.row_of_stage.size() * static_cast<std::size_t>(program.micro_batches);
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
  if (edge.from_stage.valid())
    what += concat(" ", edge.from_stage, "->", edge.to_stage, " m", instruction.action.micro_batch);
  else if (edge.item >= 0)
    what += concat(" ", edge.item);
  return concat(kind, " ", what, " (row ", edge.from, " -> ", edge.to, ")");
}

}  // namespace

std::string describe(const Program& program, const Instruction& instruction) {
  if (is_message(instruction.kind)) return describe_message(program, instruction);
  if (instruction.kind == InstructionKind::compute) return to_text(instruction.action);
  return instruction.item >= 0 ? concat(to_string(instruction.kind), " ", instruction.item)
                               : to_string(instruction.kind);
}

}  // namespace lockstep
