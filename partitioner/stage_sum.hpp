// SPDX-License-Identifier: Apache-2.0
//
// The cost of a stage from those of its layers.
#pragma once

#include "partitioner/cost_model.hpp"

namespace lockstep {

/// Layers [first, last) on a kind of device, at speed 1. `again`: activation_bytes, workspace and first_workspace are
/// those of a micro-batch whose forward is run again, and the fields of StageCost that begin so are left out.
StageCost add_up(const CostModel& model, int kind, int first, int last, const Surroundings& around, bool again);

}  // namespace lockstep
