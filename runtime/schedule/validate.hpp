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
//
// A Program is right when it is what lower() makes of its own schedule, that schedule is complete and in order, and the
// messages fit together. Rules, besides missing, twice, order and accumulation:
//   range, stray  tables that do not fit, an instruction out of bounds, on a row that has no use for it, or of another
//                 replica's micro-batch
//   edges         other edges than wire() makes
//   lowered       a row that is not as lower() writes it: the first difference
//   match         a receive that gets another message than it expects
//   blocked       rows that wait for each other for ever: like match found by executing the program, exactly
//
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
