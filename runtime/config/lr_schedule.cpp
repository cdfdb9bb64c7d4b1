// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/lr_schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "runtime/config/plugin_kind.hpp"

namespace lockstep {
namespace {

/// From `begin` at 0 to `end` at 1, in a straight line.
double line(double begin, double end, double done) {
  return end + (begin - end) * (1.0 - done);
}

/// The same along half a cosine.
double half_cosine(double begin, double end, double done) {
  return end + (begin - end) * (0.5 * (1.0 + std::cos(std::numbers::pi * done)));
}

double one_cycle(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t steps) {
  const double start = base / schedule.div_factor, end = start / schedule.final_div_factor;
  const double last = static_cast<double>(steps - 1), at = std::min(static_cast<double>(step - 1), last);
  const double top = schedule.pct_start * static_cast<double>(steps) - 1;
  if (at <= top) return half_cosine(start, base, top > 0 ? at / top : 1.0);
  return half_cosine(base, end, last > top ? (at - top) / (last - top) : 1.0);
}

double warming_up(const LrScheduleConfig& schedule, double base, std::int64_t step) {
  return base * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
}

const char* summary_of(LrScheduleType type) {
  switch (type) {
    case LrScheduleType::constant: return "the base rate, after an optional warm-up";
    case LrScheduleType::linear: return "down to min_lr in a straight line";
    case LrScheduleType::cosine: return "down to min_lr along half a cosine";
    case LrScheduleType::step: return "times step_factor every step_every steps";
    case LrScheduleType::wsd: return "warm-up, stable_steps at the base rate, then down to min_lr in a straight line";
    case LrScheduleType::one_cycle: return "up to the base rate and far down again, each along half a cosine";
    case LrScheduleType::plateau: return "times factor whenever the evaluation loss has stopped falling";
  }
  return "";
}

}  // namespace

Table<LrScheduleKind> lr_schedule_kinds() {
  std::vector<LrScheduleKind> kinds;
  const auto make = [](const LrScheduleConfig& schedule) {
    return [schedule](double base, std::int64_t step) {
      return learning_rate(schedule, base, step, schedule.decay_steps);
    };
  };
  for (const std::string& name : names<LrScheduleType>())
    kinds.push_back({name, summary_of(*find_enum<LrScheduleType>(name)), make});
  return {"learning-rate schedule", std::move(kinds)};
}

LrScheduleConfig with_end(const TrainConfig& train) {
  LrScheduleConfig schedule = train.lr_schedule;
  if (schedule.decays() && schedule.decay_steps == 0) schedule.decay_steps = train.steps;
  return schedule;
}

LearningRate learning_rate_of(const TrainConfig& train, const Table<LrScheduleKind>& kinds) {
  const LrScheduleConfig schedule = with_end(train);
  LearningRate rate = made_of(kinds, schedule, "train.lr_schedule.type");
  if (schedule.plugin.name.empty()) return rate;  // ours warm up themselves
  return [schedule, rate = std::move(rate)](double base, std::int64_t step) {
    return step <= schedule.warmup_steps ? warming_up(schedule, base, step) : rate(base, step);
  };
}

double learning_rate(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t total_steps) {
  const std::int64_t end = schedule.decay_steps > 0 ? schedule.decay_steps : total_steps;
  if (schedule.type != LrScheduleType::one_cycle && step <= schedule.warmup_steps)
    return warming_up(schedule, base, step);
  // The part of the decay that is done, when it begins behind step `begin`.
  const auto done = [&](std::int64_t begin) {
    const double span = static_cast<double>(std::max<std::int64_t>(end - begin, 1));
    return std::min(1.0, static_cast<double>(step - begin) / span);
  };
  switch (schedule.type) {
    case LrScheduleType::constant:
    case LrScheduleType::plateau: return base;
    case LrScheduleType::step: {
      const std::int64_t drops = (step - 1) / schedule.step_every;
      return base * std::pow(schedule.step_factor, static_cast<double>(drops));
    }
    case LrScheduleType::linear: return line(base, schedule.min_lr, done(schedule.warmup_steps));
    case LrScheduleType::cosine: return half_cosine(base, schedule.min_lr, done(schedule.warmup_steps));
    case LrScheduleType::wsd: {
      const std::int64_t stable = schedule.warmup_steps + schedule.stable_steps;
      return step <= stable ? base : line(base, schedule.min_lr, done(stable));
    }
    case LrScheduleType::one_cycle: return one_cycle(schedule, base, step, end);
  }
  return base;
}

}  // namespace lockstep
