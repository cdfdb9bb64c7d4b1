// SPDX-License-Identifier: Apache-2.0
//
// The shape of a row that lower.hpp draws, as an order: every instruction has a place, and along a row of a lowered
// program places never descend. Instructions of equal place may stand in any order. Private to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "runtime/schedule/wiring.hpp"

namespace lockstep {

/// Compared lexicographically: part of the row, then item within it (a compute, a tie), then step within the item.
using Place = std::array<int, 3>;

/// Where each instruction of `row` belongs, given the order of the row's computes.
std::vector<Place> places_of_row(const Program& program, const Wiring& wiring, const std::vector<Instruction>& row);

/// The fewest positions that would have to move for the places to ascend.
std::vector<std::size_t> out_of_order(const std::vector<Place>& places);

/// The instruction behind which the one at `position` belongs; none: it belongs first.
std::optional<std::size_t> belongs_behind(const std::vector<Place>& places, std::size_t position);

}  // namespace lockstep
