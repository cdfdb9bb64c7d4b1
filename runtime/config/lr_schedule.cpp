// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/lr_schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lockstep {

double learning_rate(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t total_steps) {
  if (step <= schedule.warmup_steps)
    return base * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  switch (schedule.type) {
    case LrScheduleType::constant: return base;
    case LrScheduleType::step: {
      const std::int64_t drops = (step - 1) / schedule.step_every;
      return base * std::pow(schedule.step_factor, static_cast<double>(drops));
    }
    case LrScheduleType::linear:
    case LrScheduleType::cosine: break;
  }
  const std::int64_t end = schedule.decay_steps > 0 ? schedule.decay_steps : total_steps;
  const double span = static_cast<double>(std::max<std::int64_t>(end - schedule.warmup_steps, 1));
  const double done = std::min(1.0, static_cast<double>(step - schedule.warmup_steps) / span);
  const double left =
      schedule.type == LrScheduleType::linear ? 1.0 - done : 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return schedule.min_lr + (base - schedule.min_lr) * left;
}

}  // namespace lockstep
