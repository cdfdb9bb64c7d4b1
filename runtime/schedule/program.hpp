// SPDX-License-Identifier: Apache-2.0
//
// The program: what every worker really runs, in order. It is the schedule lowered, with every exchange of
// exchange.hpp, its messages and its work, in its place, so that nothing that can block lives outside it.
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

#include "runtime/schedule/exchange.hpp"
#include "runtime/schedule/recompute.hpp"

namespace lockstep {

struct Edge {
  EdgeKind kind = EdgeKind::value;
  WorkerId from;                 ///< sending row
  WorkerId to;                   ///< receiving row
  StageId from_stage, to_stage;  ///< value, gradient: the flow's stages in the direction of this edge; else invalid
  int lane = 0;   ///< value, gradient: this edge carries the micro-batches m with m mod (lanes of the flow) == lane
  int item = -1;  ///< Exchange::item
  auto operator<=>(const Edge&) const = default;
};

/// The edges of a table, in its order: from each row to each, lane by lane. All programs of a job share one numbering.
std::vector<Edge> wire(const std::vector<Exchange>& exchanges);

struct Instruction {
  InstructionKind kind = InstructionKind::compute;
  EdgeId edge = {};    ///< post, receive, send
  Action action = {};  ///< compute. For value/gradient messages: the sender's action whose result travels: F, or I
                       ///< (also when a full backward B makes it)
  int item = -1;       ///< of work that belongs to one of several exchanges of a kind: Exchange::item
  auto operator<=>(const Instruction&) const = default;
};

struct Program {
  std::string name;  ///< e.g. "1f1b 4x8 train"
  Topology topology;
  Wiring wiring;
  std::vector<Exchange> exchanges;
  std::vector<Edge> edges;                     ///< wire(exchanges)
  std::vector<std::vector<Instruction>> rows;  ///< rows[worker]
  int micro_batches = 0;
  Mode mode = Mode::train;
  bool clip = false;             ///< the update waits for the global norm
  bool post_validation = false;  ///< with clip: it does not wait, and is amended when the norm has come
  Recompute recompute = Recompute::never;

  int workers() const { return static_cast<int>(rows.size()); }
};

/// Whether the backward of (stage, micro-batch) runs its forward again: [stage * micro_batches + micro_batch].
std::vector<bool> recomputed(const Program& program);

/// The computes of a program alone: for drawing, and for comparing with the schedule it came from.
Schedule schedule_of(const Program& program);

/// "receive value 0->1 m3 (row 0 -> 1)": how logs, findings and the watchdog name an instruction.
std::string describe(const Program& program, const Instruction& instruction);

}  // namespace lockstep
