// SPDX-License-Identifier: Apache-2.0
//
// How many messages of each flow may be under way at once under a schedule. Private to this folder.
#pragma once

#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

/// By flow, at least lanes(flow); 1 within a row. The schedule is run on paper with F, I and W of length 1 and B of
/// length 2, in which nobody waits for anything but dependencies, and the messages that have been sent but not posted
/// for are counted: with as many lanes no send waits there. That run is one order in which everything can happen, so
/// with these lanes the program cannot block, whatever things cost. A schedule that cannot run gets lanes(flow).
///
/// Where every worker has one stage, neighbours need one lane. Where a worker has several, its stages take turns, and
/// what one of them is sent meanwhile has to lie somewhere: looped_bfs with P workers sends M - P + 1 messages to
/// stage P before worker 0 turns to it.
std::vector<int> lanes_of(const Schedule& schedule, const Topology& topology);

}  // namespace lockstep
