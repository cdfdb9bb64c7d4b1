// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "partitioner/profile_file.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {

/// For people: a line for each run of equal layers, in the order of the model, for each kind of device; then links and
/// speeds. `rows`: of the
/// micro-batch whose times are shown.
std::string profile_table(const Trainer& trainer, const Profile& profile, double rows);

}  // namespace lockstep
