// SPDX-License-Identifier: Apache-2.0
//
// What a user should be told of a job that may run: settings that contradict each other or do nothing, and a training
// that has gone wrong. Never a refusal: somebody may want exactly that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/config/config.hpp"

namespace lockstep {

/// Before training, from the config and the number of training samples alone. Each is one line with the place of its
/// key.
std::vector<std::string> doubts_of(const Config& config, std::int64_t samples);

/// After training, from the loss of every step of this job in order: says that the loss ended orders of magnitude above
/// where it began; else empty.
std::string doubt_of_losses(const std::vector<double>& losses, const Config& config);

}  // namespace lockstep
