// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/config/config.hpp"

namespace lockstep {

/// A line for `lockstep list lr_schedules`.
std::string summary_of(LrScheduleType type);

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
double learning_rate(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t total_steps);

}  // namespace lockstep
