// SPDX-License-Identifier: Apache-2.0
//
// Cutting a list of layers into runs by one number per layer: elements, measured time, bytes. Torch-free. (Measured,
// memory-aware planning is make_plan.hpp; these are what it is compared with.)
#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// Layers per stage so that the heaviest stage is as light as possible; among those, early stages as full as the rest
/// allows. Exact dynamic program, O(stages * n^2). Every stage gets at least one layer. `weights`: one per layer, >= 0.
/// Throws UserError when there are more stages than layers.
std::vector<int> balanced_cut(const std::vector<double>& weights, int stages);

/// Layers per stage so that no stage weighs much more than another: the heaviest is at most one layer heavier than the
/// lightest, in weights less the lightest layer's. That says nothing about how heavy the heaviest is, and
/// balanced_cut() is never worse in that. I. Barany and V. S. Grinberg, "Block partitions of sequences", Israel J.
/// Math. 206 (2015) (arXiv 1308.2452, 2013), the constructive proof of theorem 1; the weights shifted as torchgpipe's
/// balance_by_time does, whose partition of measured times this is. Every stage gets at least one layer. Throws
/// UserError as balanced_cut().
std::vector<int> block_cut(const std::vector<double>& weights, int stages);

/// Layers per stage by the names of the first layers of all stages but the first. Throws UserError.
std::vector<int> cut_before(const std::vector<std::string>& layers, const std::vector<std::string>& first);

}  // namespace lockstep
