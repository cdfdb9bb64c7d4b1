// SPDX-License-Identifier: Apache-2.0
//
// The learning rate follows the evaluation loss: torch.optim.lr_scheduler.ReduceLROnPlateau (mode min, threshold_mode
// rel, eps 1e-8), of the base rate.
//
//   evaluations (after step)      10      20      30
//                                            | no progress for more than `patience`
//   steps                 ... 29  30  31  32  33 ...
//                                          ^ kPlateauDelay steps after the evaluation's: reduced
//
// What a run computes is known two programs later (docs/architecture.md, "Life of a step"), and the first program
// behind an evaluation is the next step. So step s + 2 is the first that can know the evaluation after step s, for
// every split, schedule and transport.
#pragma once

#include <cstdint>
#include <limits>

#include "runtime/config/config.hpp"

namespace lockstep {

/// An evaluation after step s counts from step s + kPlateauDelay on.
inline constexpr std::int64_t kPlateauDelay = 2;

/// All that it remembers. A checkpoint has it.
struct PlateauState {
  std::int64_t evaluated = 0;   ///< the last step whose evaluation has been counted
  std::int64_t bad = 0;         ///< evaluations without progress, in a row
  std::int64_t cooldown = 0;    ///< evaluations that still do not count
  std::int64_t reductions = 0;  ///< all of them
  std::int64_t reduced = 0;     ///< the step after whose evaluation the last one was decided
  double best = std::numeric_limits<double>::infinity();
  bool operator==(const PlateauState&) const = default;
};

/// Counts the evaluation after `step`; one that has been counted is not counted again (a job may stop behind it, and
/// the next one evaluates once more). A loss that is not a number is no progress.
void count_evaluation(const LrScheduleConfig& schedule, PlateauState& state, std::int64_t step, double loss);

/// The same for early stopping, of a `value` of which less is better: the first reduction is the end.
void count_evaluation(const EarlyStoppingConfig& stopping, PlateauState& state, std::int64_t step, double value);

/// What is left of the base rate in `step`, which no later evaluation than kPlateauDelay steps before it decides.
double reduced_rate(const LrScheduleConfig& schedule, const PlateauState& state, double base, std::int64_t step);

}  // namespace lockstep
