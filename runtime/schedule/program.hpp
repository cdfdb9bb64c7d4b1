// SPDX-License-Identifier: Apache-2.0
//
// The program: what every worker really runs, in order. It is the schedule lowered, with every receive and send, tie
// exchange, norm part, optimizer step and result in its place, so that nothing that can block lives outside it.
//
// Blocking semantics (what validate() proves and every transport implements):
//   post(e)     never blocks: from here on the next message on e may arrive. At most one post is outstanding per edge.
//   receive(e)  blocks until the message posted for has arrived.
//   send(e)     first waits for the previous send on e; then starts, without waiting for its own completion. A send
//               completes when the matching post has been executed by the receiver.
//   wait_sends  (last instruction of every row) waits for all sends this row has started.
// Everything else is local. A post stands one compute ahead of the compute that consumes the message:
//
//   ... post(e,0) | receive(e,0) post(e,1) F0 send(d,0) | receive(e,1) post(e,2) F1 send(d,1) | ...
//
// All messages of one edge arrive in the order in which they were sent; order comes from the program.
#pragma once

#include <string>
#include <vector>

#include "runtime/schedule/recompute.hpp"
#include "runtime/schedule/schedule.hpp"

namespace lockstep {

/// Values that are produced in stage `from` and read in the later stage `to`, one message per micro-batch. Neighbours
/// and skips (to > from + 1) are the same thing: every flow goes straight from its producer to its reader.
struct Flow {
  StageId from;
  StageId to;
  bool differentiable = true;  ///< whether a gradient message travels back (false for targets, masks, frozen producers)
};

/// One parameter that several layers hold. `holders`: the stage of each holding layer, in layer order (may repeat).
struct Tie {
  std::vector<StageId> holders;
};

/// All that lowering needs to know of a partitioned model. Torch-free.
struct Topology {
  int stages = 0;
  std::vector<Flow> flows;            ///< sorted by (from, to), unique
  std::vector<Tie> ties;              ///< only those between different stages or layers; trainable ones
  std::vector<bool> has_backward;     ///< per stage: a trainable layer in it or in a differentiable producer of it
  std::vector<bool> has_weight_grad;  ///< per stage: a trainable layer in it
};

/// A chain of `stages` stages: flows s -> s+1 (differentiable) and, for stages > 2, targets from 0 to the last (not
/// differentiable; with 2 stages they travel in the flow 0 -> 1); everything trainable; no ties. What
/// `lockstep simulate --stages N` uses.
Topology chain_topology(int stages);

/// The graph that required_before() reads: every flow is a producer; only a differentiable flow out of a stage with a
/// backward makes a consumer.
StageGraph stage_graph(const Topology& topology);

enum class EdgeKind : std::uint8_t {
  header,    ///< StepHeader, along the chain row r -> r+1
  value,     ///< values of one flow, forward
  gradient,  ///< gradients of one flow, backward
  tie,       ///< the gradient buffers of one tie, between each ordered pair of rows that hold it
  norm,      ///< per-parameter squared norms, row r -> row 0
  scale,     ///< the global norm, row 0 -> row r
  result,    ///< StepResult of the previous program, row r -> row 0
};

struct Edge {
  EdgeKind kind = EdgeKind::value;
  WorkerId from;                 ///< sending row
  WorkerId to;                   ///< receiving row
  StageId from_stage, to_stage;  ///< value, gradient: the flow's stages in the direction of this edge; else invalid
  int lane = 0;  ///< value, gradient: this edge carries the micro-batches m with m mod (lanes of the flow) == lane
  int tie = -1;  ///< tie: index into Topology::ties
  auto operator<=>(const Edge&) const = default;
};

/// The fewest edges per flow and direction: its length in stages. A neighbour needs one. A skip of length n is sent n -
/// 1 stages before it is read, so n of its messages are under way at once; over a single edge, where a send waits for
/// the one before it, the producer would stall (GPipe) or both ends would wait for each other for ever (1F1B from 6
/// stages on, with a differentiable skip from the first to the last). With n lanes 1F1B never waits in a send, whatever
/// the stages cost. Schedules with several stages per worker need more (Program::lanes).
int lanes(const Flow& flow);

/// Every edge between different rows, in one fixed order that depends on the topology, the rows and the lanes only, not
/// on the mode: all programs of a job share one numbering. `lanes`: per flow.
std::vector<Edge> wire(const Topology& topology, const std::vector<WorkerId>& row_of_stage, int rows,
                       const std::vector<int>& lanes);

/// The rows that hold a tied parameter, ascending. More than one: its gradients travel.
std::vector<WorkerId> rows_holding(const Tie& tie, const std::vector<WorkerId>& row_of_stage);

enum class InstructionKind : std::uint8_t {
  make_header,  ///< row 0 only: decides what this program does
  post,
  receive,
  send,
  compute,     ///< one Action
  tie_sum,     ///< adds the buffers of all holders of `tie`, in holder order, on every row that holds it
  norm_parts,  ///< this row's squared norms
  norm_total,  ///< row 0 only: sums the parts of all rows in the model's parameter order
  update,      ///< optimizer step of this row's parameters
  amend,  ///< post-validation: the norm is known now; where it asks for clipping, the update is undone and done again
  wait_sends,
};

struct Instruction {
  InstructionKind kind = InstructionKind::compute;
  EdgeId edge;    ///< post, receive, send
  Action action;  ///< compute. For value/gradient messages: the sender's action whose result travels: F, or I (also
                  ///< when a full backward B makes it)
  int tie = -1;   ///< tie_sum
  auto operator<=>(const Instruction&) const = default;
};

enum class Mode : std::uint8_t {
  train,     ///< forward, backward, update
  evaluate,  ///< forward only
  flush,     ///< no compute: hands the results of the previous program to row 0
  stop,      ///< no compute and no result: the last header, after which every worker leaves
};

struct Program {
  std::string name;  ///< e.g. "1f1b 4x8 train"
  Topology topology;
  std::vector<Edge> edges;
  std::vector<WorkerId> row_of_stage;
  std::vector<int> lanes;                      ///< edges per direction of each flow, index = Topology::flows
  std::vector<std::vector<Instruction>> rows;  ///< rows[worker]
  int micro_batches = 0;
  Mode mode = Mode::train;
  bool clip = false;             ///< the update waits for the global norm
  bool post_validation = false;  ///< with clip: it does not wait, and is amended when the norm has come
  Recompute recompute = Recompute::never;

  int workers() const { return static_cast<int>(rows.size()); }
};

const char* to_string(EdgeKind kind);
const char* to_string(InstructionKind kind);
const char* to_string(Mode mode);

/// Whether the backward of (stage, micro-batch) runs its forward again: [stage * micro_batches + micro_batch].
std::vector<bool> recomputed(const Program& program);

/// The computes of a program alone: for drawing, and for comparing with the schedule it came from.
Schedule schedule_of(const Program& program);

/// "receive value 0->1 m3 (row 0 -> 1)": how logs, findings and the watchdog name an instruction.
std::string describe(const Program& program, const Instruction& instruction);

}  // namespace lockstep
