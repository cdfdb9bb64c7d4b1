// SPDX-License-Identifier: Apache-2.0
//
// Distinct integer types for the things that are counted: a stage cannot be passed where a worker is meant.
#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <ostream>

namespace lockstep {

/// A 0-based number of one kind of thing. `Tag` only separates the kinds. -1 means "none".
template <typename Tag>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(int value) : value_(value) {}
  constexpr int value() const { return value_; }
  constexpr bool valid() const { return value_ >= 0; }
  constexpr auto operator<=>(const Id&) const = default;
  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << id.value_; }

 private:
  int value_ = -1;
};

/// Where the thing stands in a list of all of its kind.
template <typename Tag>
constexpr std::size_t index(Id<Tag> id) {
  return static_cast<std::size_t>(id.value());
}

using StageId = Id<struct StageTag>;    ///< a run of consecutive layers
using WorkerId = Id<struct WorkerTag>;  ///< a row of the schedule: one device of one rank, run by one thread
using RankId = Id<struct RankTag>;      ///< an MPI process (0 when there is no MPI)
using EdgeId = Id<struct EdgeTag>;      ///< a one-way channel between two workers, an index into Program::edges

}  // namespace lockstep

template <typename Tag>
struct std::hash<lockstep::Id<Tag>> {
  std::size_t operator()(lockstep::Id<Tag> id) const noexcept { return std::hash<int>{}(id.value()); }
};
