// SPDX-License-Identifier: Apache-2.0
//
// A second opinion on programs: what a row has to look like and what has to stand before what, written down rule by
// rule and without the table of exchanges, lower() or anything that lower() calls but required_before(). Slow and
// blunt, as an oracle may be: validate() has to find what it finds.
//
//   range, stray  tables that do not fit, an instruction out of bounds or on a row that has no use for it
//   edges         other edges, or in another order
//   missing, twice
//                 an instruction that this row lacks or has more than once
//   header        something before the header has come, or the header not first
//   post          a receive without its post, or two posts outstanding on one edge
//   input         a compute before a message that it needs has been received
//   order         a compute before one that it needs, on the same row
//   output        a send of something that has not been computed yet
//   statistics, reduce, shared, gather, norm, update, ready, wait_sends
//                 one of these before something that it stands on
//   place         an instruction outside its place (a post one compute ahead of its consumer, a send straight behind
//                 its producer, ...), even where that does no harm
//   match         posts, receives and sends of one edge that differ in their order
//   accumulation  B, I or W of a stage not in ascending micro-batch order
#pragma once

#include "runtime/schedule/program.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep::test {

/// In the order of rows and positions; empty: valid. Of blocking it says nothing.
std::vector<Finding> oracle(const Program& program);

}  // namespace lockstep::test
