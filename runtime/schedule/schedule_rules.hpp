// SPDX-License-Identifier: Apache-2.0
//
// What schedules and programs are asked alike about their computes. Private to this folder.
#pragma once

#include "runtime/schedule/exchange.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

/// The rules missing, twice, order and accumulation (validate.hpp), for a model that was cut like this and a program of
/// this mode. Actions must be in range. Positions count the computes of a row.
std::vector<Finding> validate_computes(const Schedule& schedule, const Topology& topology, Mode mode);

}  // namespace lockstep
