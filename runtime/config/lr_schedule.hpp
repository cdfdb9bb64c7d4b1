// SPDX-License-Identifier: Apache-2.0
//
// Learning-rate schedules: a step's rate is a function of the step (and, of type plateau, of evaluations before it:
// plateau.hpp), so that every rank and a resumed run agree.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/base/table.hpp"
#include "runtime/config/config.hpp"

namespace lockstep {

/// Learning rate of optimizer step `step` (from 1) of `total_steps`. Warm-up rises linearly to `base` over warmup_steps
/// (step s has base * s / warmup_steps); then
///   constant   base
///   linear     from base to min_lr at decay_steps (0: total_steps), min_lr after it
///   cosine     the same ends along half a cosine (Loshchilov, Hutter, "SGDR", 2017, without restarts)
///   step       base * step_factor ^ floor((step - 1) / step_every)
///   wsd        warm-up, stable, decay (Hu et al., "MiniCPM", 2024): base for stable_steps, then linear
///   one_cycle  without warm-up: from base / div_factor to base in pct_start of the steps, then to the first of these /
///              final_div_factor, both along half a cosine (Smith, Topin, "Super-Convergence", 2018; the steps are
///              those of torch.optim.lr_scheduler.OneCycleLR)
///   plateau    base, which whoever asks has reduced
/// Of one of ours.
double learning_rate(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t total_steps);

/// The rate of a step when the base rate is `base`.
using LearningRate = std::function<double(double base, std::int64_t step)>;

/// A plug-in's is asked for steps behind the warm-up only. How long training is it does not know: one with an end reads
/// it from a key of its own, so that a longer training has the same rates.
struct LrScheduleKind {
  std::string name;
  std::string summary;  ///< a line for `lockstep list lr_schedules`
  /// Of a plug-in: reads all of schedule.plugin.keys; what is wrong with them is a ConfigError.
  std::function<LearningRate(const LrScheduleConfig& schedule)> make;
};

/// Those of LrScheduleType.
Table<LrScheduleKind> lr_schedule_kinds();

/// The schedule with its end in its place: one that ends with the training is another one when training gets longer.
LrScheduleConfig with_end(const TrainConfig& train);

/// The schedule that a config names, with its warm-up. Throws ConfigError.
LearningRate learning_rate_of(const TrainConfig& train, const Table<LrScheduleKind>& kinds);

}  // namespace lockstep
