// SPDX-License-Identifier: Apache-2.0
//
// Cutting a list of layers into runs. Torch-free. (Measured, memory-aware planning builds on these.)
#pragma once

#include <vector>

namespace lockstep {

/// Layers per stage so that the heaviest stage is as light as possible; among those, early stages as full as the rest
/// allows. Exact dynamic program, O(stages * n^2). Every stage gets at least one layer. `weights`: one per layer, >= 0.
/// Throws UserError when there are more stages than layers.
std::vector<int> balanced_cut(const std::vector<double>& weights, int stages);

}  // namespace lockstep
