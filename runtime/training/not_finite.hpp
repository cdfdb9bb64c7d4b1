// SPDX-License-Identifier: Apache-2.0
//
// Where a value was not finite, for people.
#pragma once

#include <string>

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/observe/reporter.hpp"

namespace lockstep {

/// "first in the output of layer 1 'fc.1', micro-batch 0"
std::string describe(const NonFinite& found, const ModelGraph& graph);

/// What the micro-batch, or where it is known of no single one the batch, was made of: "samples 3, 17 of the training
/// set", or where they stand: "x.csv:5, x.csv:19".
std::string samples_text(const Config& config, const DataSplits& data, const NotFiniteRun& run);

}  // namespace lockstep
