// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "runtime/config/config.hpp"

namespace lockstep {

/// Learning rate of optimizer step `step` (from 1) of `total_steps`. Warm-up rises linearly to `base` over warmup_steps
/// (step s has base * s / warmup_steps); then
///   constant  base
///   linear    from base to min_lr at decay_steps (0: total_steps), min_lr after it
///   cosine    the same ends along half a cosine (Loshchilov, Hutter, "SGDR", 2017, without restarts)
///   step      base * step_factor ^ floor((step - 1) / step_every)
double learning_rate(const LrScheduleConfig& schedule, double base, std::int64_t step, std::int64_t total_steps);

}  // namespace lockstep
