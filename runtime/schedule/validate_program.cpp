// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "runtime/schedule/execution.hpp"
#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_rules.hpp"
#include "runtime/schedule/validate.hpp"

namespace lockstep {

namespace {

class ProgramProof {
 public:
  explicit ProgramProof(const Program& program) : program_(program) {}

  std::vector<Finding> run() {
    if (!structure()) return findings_;
    const Schedule schedule = schedule_of(program_);
    for (Finding& finding : validate_computes(schedule, program_.topology, program_.mode)) {
      finding.position = position_of_compute(finding.worker, finding.position);
      findings_.push_back(std::move(finding));
    }
    lowered(rows_of(program_, schedule));
    executed();
    return std::move(findings_);
  }

 private:
  using Row = std::vector<Instruction>;

  void add(WorkerId row, std::size_t position, const char* rule, const std::string& message) {
    findings_.push_back({row, static_cast<int>(position), rule, message});
  }
  void add(const char* rule, const std::string& message) { findings_.push_back({WorkerId(), -1, rule, message}); }
  std::string name(const Instruction& instruction) const { return describe(program_, instruction); }
  std::string name(InstructionKind kind, EdgeId edge, const Action& action) const { return name({kind, edge, action}); }

  // ---- structure: what everything else indexes by ----

  bool structure() {
    tables();
    if (!findings_.empty()) return false;
    for (std::size_t row = 0; row < program_.rows.size(); ++row) {
      for (std::size_t i = 0; i < program_.rows[row].size(); ++i)
        structure(WorkerId(static_cast<int>(row)), i, program_.rows[row][i]);
    }
    return findings_.empty();
  }

  void tables() {
    const Topology& topology = program_.topology;
    const Wiring& wiring = program_.wiring;
    const auto stages = static_cast<std::size_t>(topology.stages);
    const bool sizes = wiring.row_of_stage.size() == stages && topology.has_backward.size() == stages &&
                       topology.has_weight_grad.size() == stages && program_.micro_batches >= 1 && wiring.rows >= 1 &&
                       program_.workers() == wiring.rows && wiring.lanes.size() == topology.flows.size();
    const bool rows = std::all_of(wiring.row_of_stage.begin(), wiring.row_of_stage.end(),
                                  [&](WorkerId row) { return row.valid() && row.value() < wiring.rows; });
    const bool flows = std::all_of(topology.flows.begin(), topology.flows.end(), [&](const Flow& flow) {
      return flow.from.valid() && flow.from < flow.to && flow.to.value() < topology.stages;
    });
    if (!sizes || !rows || !flows)
      return add("range",
                 concat("the tables of ", program_.name, " do not fit ", stages, " stages on ", wiring.rows, " rows"));
    if (const std::vector<Edge> expected = wire(program_.exchanges); program_.edges != expected)
      add("edges", concat("got ", program_.edges.size(), " edges, expected the ", expected.size(), " of wire()"));
  }

  void structure(WorkerId row, std::size_t position, const Instruction& instruction) {
    if (is_message(instruction.kind)) {
      if (!instruction.edge.valid() || index(instruction.edge) >= program_.edges.size())
        return add(row, position, "range", name(instruction));
      const Edge& edge = program_.edges[index(instruction.edge)];
      if ((instruction.kind == InstructionKind::send ? edge.from : edge.to) != row)
        add(row, position, "stray", concat(name(instruction), " stands on row ", row));
    }
    if (instruction.kind != InstructionKind::compute) return;
    const Action& action = instruction.action;
    if (!action.stage.valid() || action.stage.value() >= program_.topology.stages || action.micro_batch < 0 ||
        action.micro_batch >= program_.micro_batches) {
      add(row, position, "range",
          concat(name(instruction), ": stages are 0 to ", program_.topology.stages - 1, ", micro-batches 0 to ",
                 program_.micro_batches - 1));
    } else if (const WorkerId owner = program_.wiring.row_of_stage[index(action.stage)]; owner != row) {
      add(row, position, "stray",
          concat(name(instruction), " stands on row ", row, ", its stage belongs to row ", owner));
    }
  }

  int position_of_compute(WorkerId row, int number) const {
    if (!row.valid() || number < 0) return number;
    const Row& instructions = program_.rows[index(row)];
    const auto at = std::find_if(instructions.begin(), instructions.end(), [&](const Instruction& instruction) {
      return instruction.kind == InstructionKind::compute && number-- == 0;
    });
    return static_cast<int>(at - instructions.begin());
  }

  // ---- the program is what lower() makes of its schedule ----

  void lowered(const std::vector<Row>& expected) {
    for (std::size_t r = 0; r < expected.size(); ++r) {
      const auto [got, want] =
          std::mismatch(program_.rows[r].begin(), program_.rows[r].end(), expected[r].begin(), expected[r].end());
      const auto text = [this](auto at, const Row& row) { return at == row.end() ? "nothing more" : name(*at); };
      if (got == program_.rows[r].end() && want == expected[r].end()) continue;
      add(WorkerId(static_cast<int>(r)), static_cast<std::size_t>(got - program_.rows[r].begin()), "lowered",
          concat("got ", text(got, program_.rows[r]), ", expected ", text(want, expected[r])));
    }
  }

  // ---- it comes to an end, and every row receives what it expects ----

  void executed() {
    ExecutionClock no_time;
    Execution execution(program_, no_time);
    const bool ends = execution.run(1);
    for (const Execution::Mismatch& mismatch : execution.mismatches()) {
      const Instruction& instruction = program_.rows[index(mismatch.row)][mismatch.position];
      add(mismatch.row, mismatch.position, "match",
          concat(name(instruction), " gets what was sent by ",
                 name(InstructionKind::send, instruction.edge, mismatch.sent)));
    }
    if (ends) return;
    const std::vector<BlockedRow> rows = execution.blocked();
    for (const BlockedRow& blocked : rows) {
      const Instruction& instruction = program_.rows[index(blocked.row)][blocked.position];
      const std::string waited = instruction.kind == InstructionKind::receive
                                     ? name(InstructionKind::send, blocked.edge, instruction.action)
                                     : name(InstructionKind::post, blocked.edge, last_sent(blocked));
      const std::string what = blocked.waits_for == blocked.row ? std::string("for its own post, which never comes")
                                                                : concat("for row ", blocked.waits_for, " to ", waited);
      add(blocked.row, blocked.position, "blocked",
          concat("row ", blocked.row, " stops at ", blocked.position, ", ", name(instruction), ", and waits ", what,
                 chain_from(blocked, rows)));
    }
  }

  /// The action that the message under way on the edge belongs to: a send waits for the one before it.
  Action last_sent(const BlockedRow& blocked) const {
    for (std::size_t i = blocked.position; i-- > 0;) {
      const Instruction& instruction = program_.rows[index(blocked.row)][i];
      if (instruction.kind == InstructionKind::send && instruction.edge == blocked.edge) return instruction.action;
    }
    return {};
  }

  /// "; row 1 -> row 2 -> row 1 (a cycle)": how the waiting closes, or the row that has nothing left to do.
  static std::string chain_from(const BlockedRow& start, const std::vector<BlockedRow>& rows) {
    std::map<WorkerId, WorkerId> waits_for;
    for (const BlockedRow& row : rows) waits_for[row.row] = row.waits_for;
    std::string chain = concat("; row ", start.row);
    std::vector<WorkerId> seen{start.row};
    for (WorkerId at = start.waits_for; at != seen.back(); at = waits_for[at]) {
      chain += concat(" -> row ", at);
      if (std::find(seen.begin(), seen.end(), at) != seen.end()) return chain + " (a cycle)";
      if (!waits_for.contains(at)) return chain + " (which has ended)";
      seen.push_back(at);
    }
    return seen.size() == 1 ? "" : chain + " (which waits for its own post)";
  }

  const Program& program_;
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> validate(const Program& program) {
  return ProgramProof(program).run();
}

}  // namespace lockstep
