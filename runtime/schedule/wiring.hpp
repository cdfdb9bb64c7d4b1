// SPDX-License-Identifier: Apache-2.0
//
// Which messages a compute waits for and which it makes: required_before() translated to edges. Lowering places these
// messages, validation looks for them. Private to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

struct EdgeMessage {
  EdgeId edge;
  Action action;  ///< the sender's action whose result travels: F or I
  auto operator<=>(const EdgeMessage&) const = default;
};

class Wiring {
 public:
  /// `edges` as wire() made them for this topology and these rows.
  Wiring(const Topology& topology, const std::vector<Edge>& edges, const std::vector<WorkerId>& row_of_stage);

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

inline std::size_t index(WorkerId id) {
  return static_cast<std::size_t>(id.value());
}
inline std::size_t index(StageId id) {
  return static_cast<std::size_t>(id.value());
}
inline std::size_t index(EdgeId id) {
  return static_cast<std::size_t>(id.value());
}

}  // namespace lockstep
