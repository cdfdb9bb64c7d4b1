// SPDX-License-Identifier: Apache-2.0
//
// Executes a Program under exactly the blocking semantics of program.hpp, on paper. validate() asks whether it comes to
// an end, simulate() asks when. Private to this folder.
//
// Rows only meet at edges, and each edge has one sender and one receiver, so the order in which rows are advanced
// changes nothing: every row runs until it blocks, carrying its own clock, and is taken up again by the event it waits
// for. The cost is linear in the number of instructions.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

/// How long things take, and who wants to know. The default: nothing takes time.
class ExecutionClock {
 public:
  virtual ~ExecutionClock() = default;
  virtual double local_us(WorkerId, const Instruction&) { return 0; }
  /// From the moment when both the send and the post have been reached until the message has arrived.
  virtual double transfer_us(EdgeId) { return 0; }
  /// What a message takes from the rows at both ends, unless they wait for it anyway.
  virtual double busy_us(EdgeId) { return 0; }
  /// After each instruction, in the row's own order.
  virtual void ran(WorkerId, const Instruction&, int /*step*/, double /*start_us*/, double /*end_us*/) {}
};

/// A row that cannot go on.
struct BlockedRow {
  WorkerId row;
  std::size_t position = 0;
  EdgeId edge;         ///< where nothing comes (receive) or nobody takes (send, wait_sends)
  WorkerId waits_for;  ///< the row that would have to act; the row itself when it receives without having posted
};

class Execution {
 public:
  /// Edges and positions of the program must be in range, and every message instruction must stand on the row at its
  /// end of the edge.
  Execution(const Program& program, ExecutionClock& clock);

  /// Every row goes on until it has run `steps` programs in all, one after the other without a barrier. False: blocked.
  bool run(int steps);

  std::vector<BlockedRow> blocked() const;

  /// A receive of something else than what was sent.
  struct Mismatch {
    WorkerId row;
    std::size_t position = 0;
    Action sent;
  };
  const std::vector<Mismatch>& mismatches() const { return mismatches_; }

 private:
  struct Row {
    std::size_t position = 0;
    int step = 0;
    double now_us = 0;
    EdgeId waits_on;
  };
  /// Counts of all steps so far; times of the latest only, since at most one message per edge is under way.
  struct EdgeState {
    long posted = 0, sent = 0, received = 0;
    double posted_us = 0, sent_us = 0;
    double arrived_us = 0;
    std::array<Action, 2> actions;  ///< of the last two sends: one may be taken when the next has been started
    long arrived() const { return posted < sent ? posted : sent; }
    bool full() const { return sent > posted; }
  };

  void advance(WorkerId id, int steps);
  bool execute(WorkerId id, const Instruction& instruction);
  /// The row waits for the message under way on the edge when there is one; false when that has to come first.
  bool wait_for_send(Row& row, EdgeId id);
  void arrive(EdgeId id);
  void wake(WorkerId id, EdgeId edge);

  const Program& program_;
  ExecutionClock& clock_;
  std::vector<Row> rows_;
  std::vector<EdgeState> edges_;
  std::vector<std::vector<EdgeId>> edges_from_;  ///< by row
  std::vector<WorkerId> ready_;
  std::vector<Mismatch> mismatches_;
};

}  // namespace lockstep
