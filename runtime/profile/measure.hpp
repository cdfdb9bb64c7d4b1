// SPDX-License-Identifier: Apache-2.0
//
// Measuring layers: each one is built alone, run through F, I and W as a stage of one layer by the engine's own Stage,
// and freed. So a model that fits nowhere is measured on a laptop, and what is measured is what a worker will do.
//
// Between two runs of a layer a worker runs the rest of its stage: its weights leave the caches. `cold_bytes` are walked
// over in between to the same effect, while the inputs stay warm, as they come from the layer before.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine/model.hpp"
#include "runtime/engine/updater.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/profile/profile.hpp"

namespace lockstep {

struct MeasureOptions {
  StageOptions stage;  ///< precision, device, seed; initialise false: weights are made, not drawn (no_init)
  int threads = 1;     ///< intra-op
  int repeats = 9;     ///< after two that are thrown away
  double most_seconds = 2;  ///< per layer and size: fewer repeats when a layer takes long, never fewer than 3
  int workers = 1;  ///< that many threads measure the same layer at the same time, as the workers of one machine will:
                    ///< they share memory bandwidth and cache
  std::int64_t cold_bytes = 0;  ///< what a worker touches between two runs of a layer
  std::function<std::unique_ptr<ParameterUpdater>()> make_updater;
};

/// Type, options, shapes and dtypes of a layer in its place. Layers with equal signatures cost the same.
std::string signature_of(const ModelGraph& graph, int layer);

/// `graph`: described for micro-batches of `rows` rows. Inputs are random values of the described kind; a last layer
/// computes its losses too. Throws LayerError when the layer fails; MemoryLimitError never.
LayerSample measure_layer(const ModelGraph& graph, int layer, std::int64_t rows, const Losses& losses,
                          const MeasureOptions& options);

/// Bytes of every value for micro-batches as described, in the precision in which it travels; index = ModelGraph::values.
std::vector<double> value_bytes(const ModelGraph& graph, at::ScalarType precision);

}  // namespace lockstep
