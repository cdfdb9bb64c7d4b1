// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/program_oracle.hpp"

#include <algorithm>
#include <map>
#include <optional>

#include "tests/unit/program_shape.hpp"

namespace lockstep::test {

namespace {

class ProgramRules {
 public:
  explicit ProgramRules(const Program& program) : program_(program) {}

  std::vector<Finding> run() {
    if (!structure()) return findings_;
    const Messages messages(program_.topology, program_.edges, program_.wiring.row_of_stage);
    messages_ = &messages;
    graph_ = stage_graph(program_.topology);
    split_ = stages_that_split();
    for (int row = 0; row < program_.workers(); ++row) {
      row_ = WorkerId(row);
      const RowIndex positions(instructions());
      positions_ = &positions;
      counts();
      needs();
      places();
      accumulation();
    }
    for (Finding& finding : mismatches(program_)) findings_.push_back(std::move(finding));
    return std::move(findings_);
  }

 private:
  const std::vector<Instruction>& instructions() const { return program_.rows[index(row_)]; }
  const Edge& edge_of(const Instruction& instruction) const { return program_.edges[index(instruction.edge)]; }

  void add(int position, const char* rule, const std::string& message) {
    findings_.push_back({row_, position, rule, message});
  }
  std::string name(const Instruction& instruction) const { return describe(program_, instruction); }

  bool structure() {
    const Topology& topology = program_.topology;
    const auto stages = static_cast<std::size_t>(topology.stages);
    if (program_.wiring.row_of_stage.size() != stages || topology.has_backward.size() != stages ||
        topology.has_weight_grad.size() != stages || program_.micro_batches < 1 || program_.workers() < 1) {
      add(-1, "range", concat("program ", program_.name, ": its tables do not fit ", stages, " stages"));
      return false;
    }
    for (const WorkerId row : program_.wiring.row_of_stage) {
      if (!row.valid() || row.value() >= program_.workers()) {
        add(-1, "range", concat("a stage is on row ", row, "; rows are 0 to ", program_.workers() - 1));
        return false;
      }
    }
    for (const Flow& flow : topology.flows) {
      if (flow.from.valid() && flow.from < flow.to && flow.to.value() < topology.stages) continue;
      add(-1, "range", concat("flow ", flow.from, "->", flow.to, ": stages are 0 to ", topology.stages - 1));
      return false;
    }
    if (program_.wiring.lanes.size() != topology.flows.size()) {
      add(-1, "edges", concat("lanes of ", program_.wiring.lanes.size(), " flows, expected ", topology.flows.size()));
      return false;
    }
    const std::vector<Edge> expected = expected_edges(topology, program_.wiring);
    if (program_.edges != expected) {
      add(-1, "edges", concat("got ", program_.edges.size(), " edges, expected the ", expected.size(), " of wire()"));
      return false;
    }
    for (int row = 0; row < program_.workers(); ++row) {
      row_ = WorkerId(row);
      for (std::size_t i = 0; i < instructions().size(); ++i) structure(static_cast<int>(i), instructions()[i]);
    }
    return findings_.empty();
  }

  void structure(int position, const Instruction& instruction) {
    if (is_message(instruction.kind)) {
      if (!instruction.edge.valid() || index(instruction.edge) >= program_.edges.size()) {
        add(position, "range", name(instruction));
      } else if ((instruction.kind == InstructionKind::send ? edge_of(instruction).from : edge_of(instruction).to) !=
                 row_) {
        add(position, "stray", concat(name(instruction), " stands on row ", row_));
      }
    }
    if (instruction.kind != InstructionKind::compute) return;
    const Action& action = instruction.action;
    if (!action.stage.valid() || action.stage.value() >= program_.topology.stages || action.micro_batch < 0 ||
        action.micro_batch >= program_.micro_batches) {
      add(position, "range",
          concat(name(instruction), ": stages are 0 to ", program_.topology.stages - 1, ", micro-batches 0 to ",
                 program_.micro_batches - 1));
    } else if (program_.wiring.row_of_stage[index(action.stage)] != row_) {
      add(position, "stray",
          concat(name(instruction), " stands on row ", row_, ", its stage belongs to row ",
                 program_.wiring.row_of_stage[index(action.stage)]));
    }
  }

  /// [stage * M + m]: whether the backward stands as I and W.
  std::vector<bool> stages_that_split() const {
    const auto m = static_cast<std::size_t>(program_.micro_batches);
    std::vector<bool> split(program_.wiring.row_of_stage.size() * m, false);
    for (const std::vector<Instruction>& row : program_.rows) {
      for (const Instruction& instruction : row) {
        const Action& action = instruction.action;
        if (instruction.kind != InstructionKind::compute) continue;
        if (action.op == Op::forward || action.op == Op::backward) continue;
        split[index(action.stage) * m + static_cast<std::size_t>(action.micro_batch)] = true;
      }
    }
    return split;
  }

  std::vector<Action> expected_actions() const {
    std::vector<Action> actions;
    const bool train = program_.mode == Mode::train;
    if (!train && program_.mode != Mode::evaluate) return actions;
    for (int s = 0; s < program_.topology.stages; ++s) {
      const StageId stage(s);
      if (program_.wiring.row_of_stage[index(stage)] != row_) continue;
      for (int m = 0; m < program_.micro_batches; ++m) {
        const Replicas& replicas = program_.topology.replicas;
        if (replicas.count > 1 && replicas.replica_of(m) != s / (program_.topology.stages / replicas.count)) continue;
        actions.push_back({stage, Op::forward, m});
        if (!train || !program_.topology.has_backward[index(stage)]) continue;
        if (!split_[index(stage) * static_cast<std::size_t>(program_.micro_batches) + static_cast<std::size_t>(m)]) {
          actions.push_back({stage, Op::backward, m});
          continue;
        }
        actions.push_back({stage, Op::input_grad, m});
        if (program_.topology.has_weight_grad[index(stage)]) actions.push_back({stage, Op::weight_grad, m});
      }
    }
    return actions;
  }

  /// Whether a program of this mode uses the edges of a kind that carry no action.
  bool uses(EdgeKind kind) const {
    switch (kind) {
      case EdgeKind::header: return true;
      case EdgeKind::value:
      case EdgeKind::gradient: return false;
      case EdgeKind::statistics:
      case EdgeKind::reduce:
      case EdgeKind::gather:
      case EdgeKind::ready:
      case EdgeKind::shared: return program_.mode == Mode::train;
      case EdgeKind::norm:
      case EdgeKind::scale: return program_.mode == Mode::train && program_.clip;
      case EdgeKind::result: return program_.mode != Mode::stop;
      case EdgeKind::request:
      case EdgeKind::reply: return false;
    }
    return false;
  }

  std::vector<Instruction> expected() const {
    std::vector<Instruction> list;
    for (const Action& action : expected_actions()) {
      list.push_back(compute(action));
      for (const EdgeMessage& message : messages_->inputs(action)) {
        list.push_back(on_edge(InstructionKind::post, message));
        list.push_back(on_edge(InstructionKind::receive, message));
      }
      for (const EdgeMessage& message : messages_->outputs(action))
        list.push_back(on_edge(InstructionKind::send, message));
    }
    for (std::size_t i = 0; i < program_.edges.size(); ++i) {
      const Edge& edge = program_.edges[i];
      if (!uses(edge.kind)) continue;
      const EdgeMessage message{EdgeId(static_cast<int>(i)), {}};
      if (edge.from == row_) list.push_back(on_edge(InstructionKind::send, message));
      if (edge.to != row_) continue;
      list.push_back(on_edge(InstructionKind::post, message));
      list.push_back(on_edge(InstructionKind::receive, message));
    }
    if (row_.value() == 0) list.push_back(local(InstructionKind::make_header));
    if (program_.mode == Mode::train) {
      for (const int item : buckets_of_row()) list.push_back(local(InstructionKind::reduce, item));
      for (const int item : shared_of_row()) list.push_back(local(InstructionKind::shared_sum, item));
      list.push_back(local(InstructionKind::norm_parts));
      if (row_.value() == 0 && program_.clip) list.push_back(local(InstructionKind::norm_total));
      list.push_back(local(InstructionKind::update));
      if (program_.post_validation) list.push_back(local(InstructionKind::amend));
    }
    list.push_back(local(InstructionKind::wait_sends));
    std::sort(list.begin(), list.end());
    return list;
  }

  std::vector<int> buckets_of_row() const {
    std::vector<int> held;
    const Topology& topology = program_.topology;
    for (std::size_t item = 0; item < topology.buckets.size() && topology.replicas.groups > 1; ++item)
      for (int stage = topology.buckets[item].stage.value(); stage < topology.stages;
           stage += topology.stages / topology.replicas.count)
        if (program_.wiring.row_of_stage[static_cast<std::size_t>(stage)] == row_)
          held.push_back(static_cast<int>(item));
    return held;
  }

  std::vector<int> shared_of_row() const {
    std::vector<int> held;
    for (std::size_t item = 0; item < program_.topology.shared.size(); ++item) {
      const std::vector<WorkerId> rows = rows_holding(program_.topology.shared[item], program_.wiring);
      if (std::find(rows.begin(), rows.end(), row_) != rows.end()) held.push_back(static_cast<int>(item));
    }
    return held;
  }

  void counts() {
    const std::vector<Instruction> expected_list = expected();
    auto wanted = expected_list.begin();
    const auto& found = positions_->sorted();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto& [instruction, position] = found[i];
      for (; wanted != expected_list.end() && *wanted < instruction; ++wanted) missing(*wanted);
      if (wanted != expected_list.end() && *wanted == instruction) {
        ++wanted;
      } else if (i > 0 && found[i - 1].first == instruction) {
        add(position, "twice", concat(name(instruction), " stands at ", found[i - 1].second, " and at ", position));
      } else {
        add(position, "stray", concat(name(instruction), " has no use on row ", row_, " of a program of this kind"));
      }
    }
    for (; wanted != expected_list.end(); ++wanted) missing(*wanted);
  }

  void missing(const Instruction& instruction) {
    add(-1, "missing", concat("row ", row_, " lacks ", name(instruction)));
  }

  void need(int position, const char* rule, const Instruction& first) {
    const int at = positions_->find(first);
    if (at < 0 || at < position) return;  // a missing one has its own finding
    add(position, rule,
        concat(name(instructions()[static_cast<std::size_t>(position)]), " stands before ", name(first),
               ", which it needs"));
  }

  void need_edges(int position, const char* rule, InstructionKind kind, EdgeKind edge_kind, int item = -1) {
    for (std::size_t i = 0; i < program_.edges.size(); ++i) {
      const Edge& edge = program_.edges[i];
      const WorkerId end = kind == InstructionKind::send ? edge.from : edge.to;
      if (edge.kind != edge_kind || edge.item != item || end != row_) continue;
      need(position, rule, on_edge(kind, {EdgeId(static_cast<int>(i)), {}}));
    }
  }

  void need_last_compute(int position, const char* rule) {
    if (last_compute_ <= position) return;
    add(position, rule,
        concat(name(instructions()[static_cast<std::size_t>(position)]), " stands before ",
               name(instructions()[static_cast<std::size_t>(last_compute_)]), ", the last compute of row ", row_));
  }

  void needs() {
    last_compute_ = -1;
    for (std::size_t i = 0; i < instructions().size(); ++i) {
      if (instructions()[i].kind == InstructionKind::compute) last_compute_ = static_cast<int>(i);
    }
    header_ = header_position();
    std::map<EdgeId, int> outstanding;
    for (std::size_t i = 0; i < instructions().size(); ++i) {
      const Instruction& instruction = instructions()[i];
      const int position = static_cast<int>(i);
      need_header(position, instruction);
      switch (instruction.kind) {
        case InstructionKind::make_header: break;
        case InstructionKind::post:
          if (++outstanding[instruction.edge] > 1) {
            add(position, "post", concat(name(instruction), ": the post before it on this edge has not been received"));
          }
          break;
        case InstructionKind::receive:
          --outstanding[instruction.edge];
          need(position, "post", on_edge(InstructionKind::post, {instruction.edge, instruction.action}));
          break;
        case InstructionKind::send: send_needs(position, instruction); break;
        case InstructionKind::compute: compute_needs(position, instruction.action); break;
        case InstructionKind::reduce:
          need_edges(position, "reduce", InstructionKind::send, EdgeKind::reduce, instruction.item);
          need_edges(position, "reduce", InstructionKind::receive, EdgeKind::reduce, instruction.item);
          break;
        case InstructionKind::shared_sum:
          need_last_compute(position, "shared");
          for (const int item : buckets_of_row()) need(position, "shared", local(InstructionKind::reduce, item));
          need_edges(position, "shared", InstructionKind::send, EdgeKind::shared, instruction.item);
          need_edges(position, "shared", InstructionKind::receive, EdgeKind::shared, instruction.item);
          break;
        case InstructionKind::norm_parts:
          need_last_compute(position, "norm");
          for (const int item : buckets_of_row()) need(position, "norm", local(InstructionKind::reduce, item));
          for (const int item : shared_of_row()) need(position, "norm", local(InstructionKind::shared_sum, item));
          break;
        case InstructionKind::norm_total:
          need(position, "norm", local(InstructionKind::norm_parts));
          need_edges(position, "norm", InstructionKind::receive, EdgeKind::norm);
          break;
        case InstructionKind::update:
          need_last_compute(position, "update");
          for (const int item : shared_of_row()) need(position, "update", local(InstructionKind::shared_sum, item));
          need(position, "update", local(InstructionKind::norm_parts));
          if (!program_.topology.replicas.shard_optimizer)
            for (const int item : buckets_of_row())
              need_edges(position, "update", InstructionKind::receive, EdgeKind::gather, item);
          if (!program_.post_validation) need_norm(position);
          break;
        case InstructionKind::amend:
          need(position, "update", local(InstructionKind::update));
          need_norm(position);
          break;
        case InstructionKind::wait_sends:
          if (i + 1 != instructions().size()) {
            add(position, "wait_sends",
                concat("wait_sends stands before ", name(instructions()[i + 1]), "; it is the last"));
          }
          break;
      }
    }
  }

  void need_updated(int position, const char* rule) {
    need(position, rule, local(program_.post_validation ? InstructionKind::amend : InstructionKind::update));
  }

  void need_norm(int position) {
    need(position, "update", local(InstructionKind::norm_total));
    need_edges(position, "update", InstructionKind::receive, EdgeKind::scale);
  }

  /// Position of make_header (row 0) or of the receive of the header; -1 when it is missing.
  int header_position() const {
    if (row_.value() == 0) return positions_->find(local(InstructionKind::make_header));
    const auto header = std::find_if(program_.edges.begin(), program_.edges.end(), [this](const Edge& edge) {
      return edge.kind == EdgeKind::header && edge.to == row_;
    });
    const EdgeId id(static_cast<int>(header - program_.edges.begin()));
    return positions_->find(on_edge(InstructionKind::receive, {id, {}}));
  }

  void need_header(int position, const Instruction& instruction) {
    if (position >= header_) return;
    const bool taking = instruction.kind == InstructionKind::post || instruction.kind == InstructionKind::receive;
    if (taking && edge_of(instruction).kind == EdgeKind::header) return;
    add(position, "header",
        concat(name(instruction), " stands before ", name(instructions()[static_cast<std::size_t>(header_)]),
               ", which it needs"));
  }

  void send_needs(int position, const Instruction& instruction) {
    switch (edge_of(instruction).kind) {
      case EdgeKind::header:
      case EdgeKind::result:
      case EdgeKind::request:
      case EdgeKind::reply: break;
      case EdgeKind::value:
      case EdgeKind::gradient: need(position, "output", compute(as_written(instruction.action))); break;
      case EdgeKind::statistics: need_last_compute(position, "statistics"); break;
      case EdgeKind::reduce: break;  // its place is a rule of its own
      case EdgeKind::gather:
        if (program_.topology.replicas.shard_optimizer)
          need_updated(position, "gather");
        else
          for (const int item : buckets_of_row()) need(position, "gather", local(InstructionKind::reduce, item));
        break;
      case EdgeKind::ready:
        need_updated(position, "ready");
        need_edges(position, "ready", InstructionKind::receive, EdgeKind::gather, edge_of(instruction).item);
        break;
      case EdgeKind::shared: need_last_compute(position, "shared"); break;
      case EdgeKind::norm: need(position, "norm", local(InstructionKind::norm_parts)); break;
      case EdgeKind::scale: need(position, "norm", local(InstructionKind::norm_total)); break;
    }
  }

  void compute_needs(int position, const Action& action) {
    for (const EdgeMessage& message : messages_->inputs(action)) {
      need(position, "input", on_edge(InstructionKind::receive, message));
    }
    for (const Action& required : required_before(action, graph_)) {
      if (program_.wiring.row_of_stage[index(required.stage)] == row_)
        need(position, "order", compute(as_written(required)));
    }
  }

  /// An I that is looked for may stand there as a B.
  Action as_written(Action action) const {
    if (action.op == Op::input_grad && positions_->find(compute(action)) < 0) action.op = Op::backward;
    return action;
  }

  void places() {
    const std::vector<Spot> places = places_of_row(program_, *messages_, instructions());
    for (const std::size_t i : out_of_order(places)) {
      const std::optional<std::size_t> target = belongs_behind(places, i);
      const std::string where = target ? concat("behind ", name(instructions()[*target])) : "at the start of the row";
      add(static_cast<int>(i), "place", concat(name(instructions()[i]), " is out of place; it belongs ", where));
    }
  }

  void accumulation() {
    std::map<std::pair<StageId, Op>, int> latest;
    for (std::size_t i = 0; i < instructions().size(); ++i) {
      const Action& action = instructions()[i].action;
      if (instructions()[i].kind != InstructionKind::compute || action.op == Op::forward) continue;
      const auto parts =
          action.op == Op::backward ? std::vector<Op>{Op::input_grad, Op::weight_grad} : std::vector<Op>{action.op};
      int before = -1;
      for (const Op part : parts) {
        const auto [entry, first] = latest.try_emplace({action.stage, part}, -1);
        before = std::max(before, entry->second);
        entry->second = std::max(entry->second, action.micro_batch);
      }
      if (before <= action.micro_batch) continue;
      add(static_cast<int>(i), "accumulation",
          concat(name(instructions()[i]), " stands after micro-batch ", before,
                 " of its stage; gradients are summed in ascending order"));
      findings_.back().fatal = false;
    }
  }

  const Program& program_;
  StageGraph graph_;
  std::vector<Finding> findings_;
  const Messages* messages_ = nullptr;
  std::vector<bool> split_;
  WorkerId row_;
  const RowIndex* positions_ = nullptr;
  int last_compute_ = -1;
  int header_ = -1;
};

}  // namespace

std::vector<Finding> oracle(const Program& program) {
  return ProgramRules(program).run();
}

}  // namespace lockstep::test
