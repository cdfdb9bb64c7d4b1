// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/simulation.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "runtime/schedule/bucket_work.hpp"
#include "runtime/schedule/execution.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

namespace {

/// Bytes of one message on each edge.
std::vector<double> bytes_of_edges(const Program& program, const Costs& costs) {
  std::vector<double> bytes = elements_between_replicas(program);
  for (std::size_t e = 0; e < bytes.size(); ++e) {
    const Edge& edge = program.edges[e];
    if (edge.kind == EdgeKind::reduce || edge.kind == EdgeKind::gather) {
      bytes[e] *= costs.element_bytes;
      continue;
    }
    const bool shared = edge.kind == EdgeKind::shared, flow = edge.from_stage.valid();
    const std::vector<double>& of = shared ? costs.shared_bytes : costs.flow_bytes;
    bytes[e] = (shared || flow) && !of.empty() ? of[static_cast<std::size_t>(edge.item)] : 0.0;
  }
  return bytes;
}

/// By edge: how long a message is under way, and what it takes from the workers at either end.
struct MessageTimes {
  std::vector<double> transfer_us, busy_us;
};

/// What a row sends several replicas in one exchange, it sends at once: they share its link.
MessageTimes times_of_edges(const Program& program, const Costs& costs, const std::vector<double>& bytes) {
  const auto all_of = [](const Edge& edge) { return std::tuple(edge.kind, edge.item, edge.from); };
  const auto shares = [&](const Edge& edge) {
    return between_replicas(edge.kind) && !costs.by_pointer(edge.from, edge.to);
  };
  std::map<std::tuple<EdgeKind, int, WorkerId>, double> at_once;
  for (std::size_t e = 0; e < bytes.size(); ++e)
    if (shares(program.edges[e])) at_once[all_of(program.edges[e])] += bytes[e];
  MessageTimes times;
  for (std::size_t e = 0; e < bytes.size(); ++e) {
    const Edge& edge = program.edges[e];
    const LinkCost link = costs.link(edge.from, edge.to);
    times.transfer_us.push_back(link.transfer_us(shares(edge) ? at_once[all_of(edge)] : bytes[e]));
    times.busy_us.push_back(bytes[e] * link.busy_us_per_byte);
  }
  return times;
}

/// What one worker holds. Everything is taken and given back by the worker's own instructions, so its order is enough.
class Memory {
 public:
  Memory(const Program& program, const Costs& costs, const std::vector<double>& edge_bytes)
      : program_(program),
        costs_(costs),
        slot_bytes_(edge_bytes),
        handed_bytes_(edge_bytes.size(), 0.0),
        rows_(program.rows.size()),
        again_(recomputed(program)),
        backward_(static_cast<std::size_t>(program.topology.stages), false),
        summing_(backward_.size(), false),
        hands_back_(backward_.size(), 0.0),
        is_handed_(backward_.size(), 0.0) {
    for (std::size_t e = 0; e < slot_bytes_.size(); ++e) {
      const Edge& edge = program.edges[e];
      if (!costs.by_pointer(edge.from, edge.to)) continue;
      if (edge.kind == EdgeKind::gradient) handed_bytes_[e] = slot_bytes_[e];
      slot_bytes_[e] = 0;
    }
    for (std::size_t s = 0; s < backward_.size(); ++s) {
      backward_[s] = program.mode == Mode::train && program.topology.has_backward[s];
    }
    for (std::size_t i = 0; i < costs.flow_bytes.size(); ++i) {
      const Flow& flow = program.topology.flows[i];
      const bool within_row =
          program.wiring.row_of_stage[index(flow.from)] == program.wiring.row_of_stage[index(flow.to)];
      if (!within_row || !flow.differentiable || !backward_[index(flow.from)]) continue;
      hands_back_[index(flow.to)] += costs.flow_bytes[i];
      is_handed_[index(flow.from)] += costs.flow_bytes[i];
    }
  }

  void ran(WorkerId id, const Instruction& instruction) {
    Row& row = rows_[index(id)];
    switch (instruction.kind) {
      case InstructionKind::post: row.bytes += slot_bytes_[index(instruction.edge)]; break;
      case InstructionKind::receive:
        row.bytes += handed_bytes_[index(instruction.edge)];
        row.unused_slots += slot_bytes_[index(instruction.edge)] + handed_bytes_[index(instruction.edge)];
        if (program_.edges[index(instruction.edge)].kind == EdgeKind::gather) {  // copied to where it belongs
          row.peak_bytes = std::max(row.peak_bytes, row.bytes);
          reach(row, 0);
          use_slots(row);
        }
        break;
      case InstructionKind::compute: compute(row, instruction.action); break;
      case InstructionKind::shared_sum:
        reach(row, shared_sum_bytes(id, static_cast<std::size_t>(instruction.item)));
        use_slots(row);
        break;
      case InstructionKind::reduce: use_slots(row); break;
      case InstructionKind::update:
        if (!program_.post_validation) forget_gradients(id);
        break;
      case InstructionKind::amend: forget_gradients(id); break;
      case InstructionKind::make_header:
      case InstructionKind::send:
      case InstructionKind::norm_parts:
      case InstructionKind::norm_total:
      case InstructionKind::wait_sends: break;
    }
    row.peak_bytes = std::max(row.peak_bytes, row.bytes);
    reach(row, 0);
  }

  double peak_bytes(std::size_t row) const { return rows_[row].peak_bytes; }
  double total_bytes(std::size_t row) const {
    return rows_[row].peak_total + (costs_.resident_bytes.empty() ? 0.0 : costs_.resident_bytes[row]);
  }
  int peak_micro_batches(std::size_t row) const { return rows_[row].peak_alive; }

 private:
  struct Row {
    double bytes = 0, peak_bytes = 0;
    double unused_slots = 0;  ///< received, waiting for the next compute
    double handed = 0;        ///< gradients from one stage of the row to another, waiting for its B or I
    double gradients = 0;     ///< of the stages that have begun to sum
    double peak_total = 0;    ///< of bytes, gradients and what a running action needs
    int alive = 0, peak_alive = 0;
  };

  /// For a moment there are `workspace` bytes more.
  static void reach(Row& row, double workspace) {
    row.peak_total = std::max(row.peak_total, row.bytes + row.handed + row.gradients + workspace);
  }

  /// The sum so far and the next one. Where the first buffer is the row's own it takes the place of that, unless
  /// another row of the rank still looks at it.
  double shared_sum_bytes(WorkerId id, std::size_t item) const {
    if (costs_.shared_bytes.empty()) return 0;
    const Shared& of = program_.topology.shared[item];
    bool replaces = program_.wiring.row_of_stage[index(of.holders.front())] == id;
    for (const WorkerId row : rows_holding(of, program_.wiring))
      if (row != id && costs_.by_pointer(row, id)) replaces = false;
    return (replaces ? 1 : 2) * costs_.shared_bytes[item];
  }

  static void use_slots(Row& row) {
    row.bytes -= row.unused_slots;
    row.unused_slots = 0;
  }

  void forget_gradients(WorkerId id) {
    rows_[index(id)].gradients = 0;
    for (std::size_t s = 0; s < summing_.size(); ++s)
      if (program_.wiring.row_of_stage[s] == id) summing_[s] = false;
  }

  void compute(Row& row, const Action& action) {
    const StageCost& cost = costs_.stages[index(action.stage)];
    const bool backward = backward_[index(action.stage)];
    const bool splits = program_.topology.has_weight_grad[index(action.stage)];
    const bool again = backward && again_[index(action.stage) * static_cast<std::size_t>(program_.micro_batches) +
                                          static_cast<std::size_t>(action.micro_batch)];
    const double held = again ? cost.recompute_activation_bytes : cost.activation_bytes;
    const bool sums = action.op == Op::backward || action.op == Op::weight_grad;
    const bool first = sums && splits && !summing_[index(action.stage)];
    const Workspace& usual = again ? cost.recompute_workspace : cost.workspace;
    const Workspace& workspace = !first ? usual : again ? cost.recompute_first_workspace : cost.first_workspace;
    switch (action.op) {
      case Op::forward:
        reach(row, workspace.forward);
        use_slots(row);  // a received value is part of activation_bytes from here on
        row.bytes += held;
        row.peak_alive = std::max(row.peak_alive, ++row.alive);
        row.peak_bytes = std::max(row.peak_bytes, row.bytes);
        reach(row, 0);
        if (!backward) release(row, held);
        break;
      case Op::backward:
        reach(row, workspace.backward);
        use_slots(row);
        release(row, held);
        hand_back(row, action.stage);
        break;
      case Op::input_grad:
        reach(row, workspace.input_grad);
        use_slots(row);
        release(row, held);  // layer by layer: what W needs takes the place of what I has used
        if (splits) row.bytes += cost.weight_grad_bytes;
        hand_back(row, action.stage);
        break;
      case Op::weight_grad:
        reach(row, workspace.weight_grad);
        row.bytes -= cost.weight_grad_bytes;
        break;
    }
    if (first) {
      summing_[index(action.stage)] = true;
      row.gradients += cost.gradient_bytes;
    }
  }

  void hand_back(Row& row, StageId stage) const { row.handed += hands_back_[index(stage)] - is_handed_[index(stage)]; }

  static void release(Row& row, double activation_bytes) {
    row.bytes -= activation_bytes;
    --row.alive;
  }

  const Program& program_;
  const Costs& costs_;
  std::vector<double> slot_bytes_;    ///< by edge, from post to use
  std::vector<double> handed_bytes_;  ///< by edge, from receive to use: of gradients within a rank
  std::vector<Row> rows_;
  std::vector<bool> again_;
  std::vector<bool> backward_;
  std::vector<bool> summing_;  ///< by stage: its gradients are there
  std::vector<double> hands_back_,
      is_handed_;  ///< by stage: gradients that its B or I makes for (has from) its own row
};

class CostClock : public ExecutionClock {
 public:
  CostClock(const Program& program, const Costs& costs, int recorded_steps)
      : program_(program),
        costs_(costs),
        edge_bytes_(bytes_of_edges(program, costs)),
        messages_us_(times_of_edges(program, costs, edge_bytes_)),
        memory_(program, costs, edge_bytes_),
        again_(recomputed(program)),
        recorded_steps_(recorded_steps),
        work_us_(program.rows.size(), 0.0) {}

  double local_us(WorkerId row, const Instruction& instruction) override {
    if (instruction.kind == InstructionKind::reduce) {
      return costs_.reduce_us.empty() ? 0.0 : costs_.reduce_us[index(row)] * share_of_buckets(row, instruction.item);
    }
    if (instruction.kind == InstructionKind::update) {
      return costs_.update_us.empty() ? 0.0 : costs_.update_us[index(row)];
    }
    return instruction.kind == InstructionKind::compute ? compute_us(instruction.action) : 0.0;
  }

  double transfer_us(EdgeId edge) override { return messages_us_.transfer_us[index(edge)]; }
  double busy_us(EdgeId edge) override { return messages_us_.busy_us[index(edge)]; }

  void ran(WorkerId row, const Instruction& instruction, int step, double start_us, double end_us) override {
    if (step == 0) {
      memory_.ran(row, instruction);
      if (is_work(instruction)) work_us_[index(row)] += end_us - start_us;
      if (instruction.kind == InstructionKind::send) {
        messages_ += program_.edges[index(instruction.edge)].from_stage.valid() ? 1 : 0;
      }
    }
    const bool shown = end_us > start_us || instruction.kind == InstructionKind::compute;
    if (step < recorded_steps_ && shown) spans_.push_back({row, instruction, step, start_us, end_us});
    if (static_cast<std::size_t>(step) >= done_us_.size())
      done_us_.resize(static_cast<std::size_t>(step) + 1, std::vector<double>(work_us_.size(), 0.0));
    done_us_[static_cast<std::size_t>(step)][index(row)] = end_us;
  }

  /// When each worker was done with each step: [step][row].
  const std::vector<std::vector<double>>& done_us() const { return done_us_; }
  const Memory& memory() const { return memory_; }
  const std::vector<double>& work_us() const { return work_us_; }
  long messages() const { return messages_; }
  std::vector<Span> take_spans() { return std::move(spans_); }

 private:
  /// Of the elements of all buckets of the row.
  double share_of_buckets(WorkerId row, int item) const {
    const Topology& topology = program_.topology;
    double all = 0;
    for (const Bucket& bucket : topology.buckets)
      for (int replica = 0; replica < topology.replicas.count; ++replica)
        if (program_.wiring.row_of_stage[index(topology.in_replica(bucket.stage, replica))] == row)
          all += static_cast<double>(bucket.blocks.elements());
    return all > 0 ? static_cast<double>(topology.buckets[static_cast<std::size_t>(item)].blocks.elements()) / all : 0;
  }

  double compute_us(const Action& action) const {
    const StageCost& cost = costs_.stages[index(action.stage)];
    const bool again = again_[index(action.stage) * static_cast<std::size_t>(program_.micro_batches) +
                              static_cast<std::size_t>(action.micro_batch)];
    const double again_us = again ? cost.recompute_us : 0.0;
    switch (action.op) {
      case Op::forward: return cost.forward_us;
      case Op::backward:
        return again_us + cost.input_grad_us +
               (program_.topology.has_weight_grad[index(action.stage)] ? cost.weight_grad_us : 0.0);
      case Op::input_grad: return again_us + cost.input_grad_us;
      case Op::weight_grad: return cost.weight_grad_us;
    }
    return 0.0;
  }

  const Program& program_;
  const Costs& costs_;
  const std::vector<double> edge_bytes_;
  const MessageTimes messages_us_;
  Memory memory_;
  const std::vector<bool> again_;
  const int recorded_steps_;
  std::vector<double> work_us_;
  std::vector<std::vector<double>> done_us_;
  std::vector<Span> spans_;
  long messages_ = 0;
};

/// Steps that follow each other settle into a fixed rhythm after a few: two equal periods in a row, on every worker,
/// end the search (while the pipeline fills, some run ahead of those that will hold them up), else the average of the
/// last half counts, of the slowest worker (a rhythm may take turns between several lengths).
double settle(Execution& execution, const CostClock& clock, int steps) {
  constexpr int kMostSteps = 16;
  constexpr double kSame = 1e-9;
  const auto gained = [&clock](int from, int to, std::size_t row) {
    return clock.done_us()[static_cast<std::size_t>(to)][row] - clock.done_us()[static_cast<std::size_t>(from)][row];
  };
  const std::size_t rows = clock.work_us().size();
  const int last = std::max(steps, kMostSteps);
  for (int step = std::max(steps, 3); step < last; ++step) {
    execution.run(step + 1);
    const double period = gained(step - 1, step, 0);
    bool settled = true;
    for (std::size_t row = 0; row < rows && settled; ++row)
      settled = std::abs(gained(step - 1, step, row) - period) <= kSame * period &&
                std::abs(gained(step - 2, step - 1, row) - period) <= kSame * period;
    if (settled) return period;
  }
  double slowest = 0;
  const int half = last / 2;
  for (std::size_t row = 0; row < rows; ++row)
    slowest = std::max(slowest, gained(half, last - 1, row) / (last - 1 - half));
  return slowest;
}

double idle_share(const std::vector<double>& work_us, double span_us) {
  double work = 0;
  for (const double us : work_us) work += us;
  const double all = static_cast<double>(work_us.size()) * span_us;
  return all > 0 ? std::max(0.0, 1.0 - work / all) : 0.0;
}

}  // namespace

Simulation simulate(const Program& program, const Costs& costs, int steps) {
  check_costs(costs, program);
  if (steps < 0) throw UserError(concat("simulate: got ", steps, " steps, expected at least 0"));
  CostClock clock(program, costs, steps);
  Execution execution(program, clock);
  steps = std::max(steps, 1);  // without a timeline too
  if (!execution.run(steps)) {
    const BlockedRow blocked = execution.blocked().front();
    throw ScheduleError(concat("program ", program.name, " blocks: row ", blocked.row, " at ", blocked.position, ", ",
                               describe(program, program.rows[index(blocked.row)][blocked.position])));
  }
  Simulation result;
  result.timeline = {program.name, program.workers(), clock.take_spans()};
  for (const double us : clock.done_us().front()) result.step_us = std::max(result.step_us, us);
  result.period_us = settle(execution, clock, steps);
  result.work_us = clock.work_us();
  result.bubble = idle_share(result.work_us, result.step_us);
  result.bubble_steady = idle_share(result.work_us, result.period_us);
  result.messages = clock.messages();
  for (std::size_t row = 0; row < program.rows.size(); ++row) {
    result.peak_bytes.push_back(clock.memory().peak_bytes(row));
    result.total_bytes.push_back(clock.memory().total_bytes(row));
    result.peak_micro_batches.push_back(clock.memory().peak_micro_batches(row));
  }
  return result;
}

}  // namespace lockstep
