// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/plateau.hpp"

#include <algorithm>

namespace lockstep {

namespace {

/// `value` is progress when it is below `bound`.
void count(PlateauState& state, std::int64_t step, double value, double bound, std::int64_t patience,
           std::int64_t cooldown) {
  if (step <= state.evaluated) return;
  state.evaluated = step;
  if (value < bound) {
    state.best = value;
    state.bad = 0;
  } else {
    ++state.bad;
  }
  if (state.cooldown > 0) {
    --state.cooldown;
    state.bad = 0;
  }
  if (state.bad <= patience) return;
  ++state.reductions;
  state.reduced = step;
  state.cooldown = cooldown;
  state.bad = 0;
}

}  // namespace

void count_evaluation(const LrScheduleConfig& schedule, PlateauState& state, std::int64_t step, double loss) {
  count(state, step, loss, state.best * (1.0 - schedule.threshold), schedule.patience, schedule.cooldown);
}

void count_evaluation(const EarlyStoppingConfig& stopping, PlateauState& state, std::int64_t step, double value) {
  count(state, step, value, state.best - stopping.min_delta, stopping.patience, 0);
}

double reduced_rate(const LrScheduleConfig& schedule, const PlateauState& state, double base, std::int64_t step) {
  constexpr double kLeast = 1e-8;  // a reduction by no more than that is none
  const bool waits = state.reductions > 0 && step < state.reduced + kPlateauDelay;
  double rate = base;
  for (std::int64_t i = waits ? 1 : 0; i < state.reductions; ++i) {
    const double lower = std::max(rate * schedule.factor, schedule.min_lr);
    if (!(rate - lower > kLeast)) break;  // nor is any later one
    rate = lower;
  }
  return rate;
}

}  // namespace lockstep
