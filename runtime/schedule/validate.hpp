// SPDX-License-Identifier: Apache-2.0
//
// Proves that a schedule or a program can run and computes the right thing, or says everything that is wrong with it.
//
// Rules of a Schedule:
//   range         a stage, micro-batch or row count outside its bounds
//   row           a stage on several workers
//   empty         a worker without actions
//   missing       a forward, or a backward (B, or I and W), that no row has
//   twice         an action that stands more than once, or a B beside an I or W
//   order         an action before one that it needs, on the same row (required_before)
//   accumulation  B, I or W of a stage not in ascending micro-batch order: gradients are summed in that order
//   blocked       rows that wait for each other for ever
// Rules of a Program, besides:
//   edges         other edges than wire() makes
//   stray         an instruction that this row has no use for
//   header        something before the header has come, or the header not first
//   post          a receive without its post, or two posts outstanding on one edge
//   input         a compute before a message that it needs has been received
//   output        a send of something that has not been computed yet
//   match         posts, receives and sends of one edge that differ in their order
//   tie, norm, update, wait_sends
//                 one of these before something that it stands on
//   place         an instruction outside its place in the shape that lower.hpp draws (a post one compute ahead of its
//                 consumer, a send straight behind its producer, ...), even where that does no harm
//   blocked       found by executing the blocking semantics of program.hpp, exactly
// A broken program often breaks several rules at once; all are reported.
#pragma once

#include <string>
#include <vector>

#include "runtime/schedule/program.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

/// The order in which the gradients of a stage may be summed.
enum class Order : std::uint8_t {
  ascending,  ///< micro-batches 0..M-1: the same bits as every other schedule
  any,        ///< as the schedule says: it runs, to other bits. For schedules that were made elsewhere
};

/// Dependencies are those of a chain of stages. Findings in the order of rows and positions; empty: valid.
std::vector<Finding> validate(const Schedule& schedule);
std::vector<Finding> validate(const Program& program);

/// Throws ScheduleError with all findings, and with the grid marked at the first one in its message. With Order::any
/// findings that are not fatal are no reason to throw.
void require_valid(const Schedule& schedule, Order order = Order::ascending);
void require_valid(const Program& program, Order order = Order::ascending);

/// For schedules that are accepted with Order::any: a sentence that warns of their order, naming the first place; empty
/// when they sum gradients in ascending order.
std::string warning_of_order(const Schedule& schedule);

}  // namespace lockstep
