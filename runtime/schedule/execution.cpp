// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/execution.hpp"

#include <algorithm>

#include "runtime/base/check.hpp"

namespace lockstep {

Execution::Execution(const Program& program, ExecutionClock& clock)
    : program_(program),
      clock_(clock),
      rows_(program.rows.size()),
      edges_(program.edges.size()),
      edges_from_(program.rows.size()) {
  for (std::size_t i = 0; i < program.edges.size(); ++i) {
    edges_from_[index(program.edges[i].from)].push_back(EdgeId(static_cast<int>(i)));
  }
}

bool Execution::run(int steps) {
  for (int row = program_.workers() - 1; row >= 0; --row) ready_.emplace_back(row);
  while (!ready_.empty()) {
    const WorkerId row = ready_.back();
    ready_.pop_back();
    advance(row, steps);
  }
  return std::all_of(rows_.begin(), rows_.end(), [steps](const Row& row) { return row.step >= steps; });
}

void Execution::advance(WorkerId id, int steps) {
  Row& row = rows_[index(id)];
  const std::vector<Instruction>& instructions = program_.rows[index(id)];
  row.waits_on = EdgeId();
  while (row.step < steps) {
    for (; row.position < instructions.size(); ++row.position) {
      const Instruction& instruction = instructions[row.position];
      const double start_us = row.now_us;
      if (!execute(id, instruction)) return;
      clock_.ran(id, instruction, row.step, start_us, row.now_us);
    }
    row.position = 0;
    ++row.step;
  }
}

bool Execution::execute(WorkerId id, const Instruction& instruction) {
  Row& row = rows_[index(id)];
  switch (instruction.kind) {
    case InstructionKind::post: {
      EdgeState& edge = edges_[index(instruction.edge)];
      ++edge.posted;
      edge.posted_us = row.now_us;
      if (edge.sent >= edge.posted) arrive(instruction.edge);
      wake(program_.edges[index(instruction.edge)].from, instruction.edge);
      return true;
    }
    case InstructionKind::send: {
      if (!wait_for_send(row, instruction.edge)) return false;
      EdgeState& edge = edges_[index(instruction.edge)];
      ++edge.sent;
      edge.sent_us = row.now_us;
      edge.actions[static_cast<std::size_t>(edge.sent % 2)] = instruction.action;
      row.now_us += clock_.busy_us(instruction.edge);
      if (edge.posted >= edge.sent) arrive(instruction.edge);
      wake(program_.edges[index(instruction.edge)].to, instruction.edge);
      return true;
    }
    case InstructionKind::receive: {
      EdgeState& edge = edges_[index(instruction.edge)];
      if (edge.arrived() <= edge.received) {
        row.waits_on = instruction.edge;
        return false;
      }
      ++edge.received;
      const Action& sent = edge.actions[static_cast<std::size_t>(edge.received % 2)];
      if (sent != instruction.action) mismatches_.push_back({id, row.position, sent});
      row.now_us = std::max(row.now_us + clock_.busy_us(instruction.edge), edge.arrived_us);
      return true;
    }
    case InstructionKind::wait_sends: {
      const double reached_us = row.now_us;
      for (const EdgeId edge : edges_from_[index(id)]) {
        if (wait_for_send(row, edge)) continue;
        row.now_us = reached_us;  // it will be tried again from here
        return false;
      }
      return true;
    }
    case InstructionKind::make_header:
    case InstructionKind::compute:
    case InstructionKind::reduce:
    case InstructionKind::shared_sum:
    case InstructionKind::norm_parts:
    case InstructionKind::norm_total:
    case InstructionKind::update:
    case InstructionKind::amend: row.now_us += clock_.local_us(id, instruction); return true;
  }
  LOCKSTEP_CHECK(false, "instruction kind ", static_cast<int>(instruction.kind));
  return false;
}

bool Execution::wait_for_send(Row& row, EdgeId id) {
  const EdgeState& edge = edges_[index(id)];
  if (edge.full()) {
    row.waits_on = id;
    return false;
  }
  if (edge.sent > 0) row.now_us = std::max(row.now_us, edge.arrived_us);
  return true;
}

void Execution::arrive(EdgeId id) {
  EdgeState& edge = edges_[index(id)];
  edge.arrived_us = std::max(edge.posted_us, edge.sent_us) + clock_.transfer_us(id);
}

void Execution::wake(WorkerId id, EdgeId edge) {
  Row& row = rows_[index(id)];
  if (row.waits_on != edge) return;
  row.waits_on = EdgeId();
  ready_.push_back(id);
}

std::vector<BlockedRow> Execution::blocked() const {
  std::vector<BlockedRow> found;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    if (!row.waits_on.valid()) continue;
    const WorkerId id(static_cast<int>(i));
    const Edge& edge = program_.edges[index(row.waits_on)];
    const EdgeState& state = edges_[index(row.waits_on)];
    const bool receives = edge.to == id;
    const bool nothing_posted = receives && state.posted <= state.received;
    found.push_back({id, row.position, row.waits_on, nothing_posted ? id : receives ? edge.from : edge.to});
  }
  return found;
}

}  // namespace lockstep
