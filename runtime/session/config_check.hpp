// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with a config: check_model() of the trainer that it makes.
#pragma once

#include <vector>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"
#include "runtime/training/model_check.hpp"

namespace lockstep {

/// Of one process. Throws AlreadyReported for what is found before anything is trained.
std::vector<CheckFinding> check_config(Process& process, const ConfigSource& source);

}  // namespace lockstep
