// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "partitioner/plan_file.hpp"

namespace lockstep {

/// A plan with its prediction: a table of stages, one of workers, step time and bubbles; fits the terminal.
std::string plan_table(const PlanFile& plan);

}  // namespace lockstep
