// SPDX-License-Identifier: Apache-2.0
//
// Where the stages of a job are and how many edges its flows have: what all programs of a job have in common, whatever
// their mode and number of micro-batches, so that they can follow one another over the same channels.
#pragma once

#include <vector>

#include "runtime/schedule/schedule.hpp"
#include "runtime/schedule/topology.hpp"

namespace lockstep {

struct Wiring {
  std::vector<WorkerId> row_of_stage;
  int rows = 0;
  std::vector<int> lanes;               ///< edges per direction of each flow, index = Topology::flows
  std::vector<int> memory_of_row = {};  ///< rows with the same number share a memory; empty: none do

  int memory_of(WorkerId row) const { return memory_of_row.empty() ? row.value() : memory_of_row[index(row)]; }
  bool operator==(const Wiring&) const = default;
};

/// The fewest edges per flow and direction: its length in stages. A neighbour needs one. A skip of length n is sent n -
/// 1 stages before it is read, so n of its messages are under way at once; over a single edge, where a send waits for
/// the one before it, the producer would stall (GPipe) or both ends would wait for each other for ever (1F1B from 6
/// stages on, with a differentiable skip from the first to the last). With n lanes 1F1B never waits in a send, whatever
/// the stages cost.
int fewest_lanes(const Flow& flow);

/// What a schedule asks for. Lanes: at least fewest_lanes(); 1 within a row; else as many as a run on paper
/// (schedule_run.hpp) has messages that were sent but not posted for. That run is one order in which everything can
/// happen, so with these lanes no program of this schedule can block, whatever things cost.
///
/// Where every worker has one stage, neighbours need one lane. Where a worker has several, its stages take turns, and
/// what one of them is sent meanwhile has to lie somewhere: looped_bfs with P workers sends M - P + 1 messages to
/// stage P before worker 0 turns to it.
///
/// Throws ScheduleError when a stage is on no row or on several, as check_fits() and check_ranges().
Wiring wiring_of(const Schedule& schedule, const Topology& topology, std::vector<int> memory_of_row = {});

/// Throws ScheduleError when the schedule has another number of stages than the topology.
void check_fits(const Schedule& schedule, const Topology& topology);

/// The rows that hold shared parameters, ascending. More than one: gradients travel.
std::vector<WorkerId> rows_holding(const Shared& shared, const Wiring& wiring);

}  // namespace lockstep
