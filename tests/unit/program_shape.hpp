// SPDX-License-Identifier: Apache-2.0
//
// What the oracle knows of the shape of a program: its edges, the messages around a compute, and the order in which the
// instructions of a row stand.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/schedule/program.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep::test {

/// Every edge between different rows.
std::vector<Edge> expected_edges(const Topology& topology, const Wiring& wiring);

struct EdgeMessage {
  EdgeId edge;
  Action action;  ///< the sender's action whose result travels: F or I
  auto operator<=>(const EdgeMessage&) const = default;
};

class Messages {
 public:
  /// `edges` as wire() made them for this topology and these rows.
  Messages(const Topology& topology, const std::vector<Edge>& edges, const std::vector<WorkerId>& row_of_stage);

  /// From other rows only, in edge order. B counts as I; W has neither.
  std::vector<EdgeMessage> inputs(const Action& action) const { return messages(inputs_, action); }
  std::vector<EdgeMessage> outputs(const Action& action) const { return messages(outputs_, action); }

 private:
  /// All lanes of one flow in one direction.
  struct Channel {
    EdgeId first;
    int lanes = 1;
    Action action;  ///< stage and op of the sender
  };
  /// [0]: of F, [1]: of I; then by stage.
  using Table = std::array<std::vector<std::vector<Channel>>, 2>;

  static std::vector<EdgeMessage> messages(const Table& table, const Action& action);

  Table inputs_;
  Table outputs_;
};

/// Compared lexicographically: part of the row, then item within it (a compute, a shared parameter), then step within
/// the item.
using Spot = std::array<int, 3>;

/// Where each instruction of `row` belongs, given the order of the row's computes. Along a row spots never descend;
/// instructions of one spot may stand in any order.
std::vector<Spot> places_of_row(const Program& program, const Messages& messages, const std::vector<Instruction>& row);

/// The fewest positions that would have to move for the spots to ascend.
std::vector<std::size_t> out_of_order(const std::vector<Spot>& spots);

/// The instruction behind which the one at `position` belongs; none: it belongs first.
std::optional<std::size_t> belongs_behind(const std::vector<Spot>& spots, std::size_t position);

inline Instruction local(InstructionKind kind, int item = -1) {
  Instruction instruction;
  instruction.kind = kind;
  instruction.item = item;
  return instruction;
}

inline Instruction compute(const Action& action) {
  Instruction instruction;
  instruction.action = action;
  return instruction;
}

inline Instruction on_edge(InstructionKind kind, const EdgeMessage& message) {
  Instruction instruction;
  instruction.kind = kind;
  instruction.edge = message.edge;
  instruction.action = message.action;
  return instruction;
}

/// Finds the positions of an instruction on its row in logarithmic time.
class RowIndex {
 public:
  explicit RowIndex(const std::vector<Instruction>& row) {
    for (std::size_t i = 0; i < row.size(); ++i) sorted_.emplace_back(row[i], static_cast<int>(i));
    std::sort(sorted_.begin(), sorted_.end());
  }
  /// First position, or -1.
  int find(const Instruction& instruction) const {
    const auto at = std::lower_bound(sorted_.begin(), sorted_.end(), std::pair(instruction, -1));
    return at != sorted_.end() && at->first == instruction ? at->second : -1;
  }
  const std::vector<std::pair<Instruction, int>>& sorted() const { return sorted_; }

 private:
  std::vector<std::pair<Instruction, int>> sorted_;
};

/// Rule match: posts, receives and sends of one edge that differ in their order.
std::vector<Finding> mismatches(const Program& program);

}  // namespace lockstep::test
