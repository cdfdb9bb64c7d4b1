// SPDX-License-Identifier: Apache-2.0
//
// Measuring layers: each one is built alone, run through F, I and W as a stage of one layer by the engine's own Stage,
// and freed. So a model that fits nowhere is measured on a laptop, and what is measured is what a worker will do.
//
// Between two runs of a layer a worker runs the rest of its stage: its weights leave the caches. `cold_bytes` are
// walked over in between to the same effect, while the inputs stay warm, as they come from the layer before.
//
//   repeat:  walk | F  release values | walk | put gradients  I  release gradients  W          (all workers at once)
//
// The gradients of earlier repeats are there, as those of earlier micro-batches are in a step.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine/model.hpp"
#include "runtime/engine/partition.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/engine/updater.hpp"
#include "runtime/profile/profile.hpp"

namespace lockstep {

inline constexpr int kFewestRepeats = 3;
inline constexpr std::int64_t kMostColdBytes = std::int64_t{64} << 20;  ///< beyond the caches of one core

struct MeasureOptions {
  StageOptions
      stage;        ///< precision, device, seed; `initialise` and `recompute` are set here: weights are made, not drawn
  int threads = 1;  ///< intra-op
  int repeats = 9;  ///< after two that are thrown away
  double most_seconds = 2;  ///< per layer and size: fewer repeats when a layer takes long, never fewer than 3
  int workers = 1;  ///< that many threads measure the same layer at the same time, as the workers of one machine will:
                    ///< they share memory bandwidth and cache
  std::int64_t cold_bytes = 0;  ///< what a worker touches between two runs of a layer; at most kMostColdBytes count
  bool clip = false;            ///< update_us has the layer's part of the global norm, and the scaling
  std::function<std::unique_ptr<ParameterUpdater>()> make_updater;  ///< empty: update_us is 0
};

/// Type, options, shapes and dtypes of a layer in its place, and its losses, hashed: "gpt_block 0123456789abcdef".
/// Layers with equal signatures cost the same. The number of rows is not part of it. `losses`: by head.
std::string signature_of(const ModelGraph& graph, int layer, const Losses& losses);
/// What is hashed.
std::string signature_text(const ModelGraph& graph, int layer, const Losses& losses);

/// The partition that measure_layer() wants: a stage for every layer.
Partition one_layer_each(const ModelGraph& graph);

/// `graph`: described for micro-batches of `rows` rows; `partition`: one_layer_each() of it. Inputs are random values
/// of the described kind; the losses of heads that read the layer are computed too. A layer without a backward takes no
/// time in I and W. Throws what the layer throws (LayerError).
LayerSample measure_layer(const ModelGraph& graph, const Partition& partition, int layer, std::int64_t rows,
                          const Losses& losses, const MeasureOptions& options);

/// Bytes of every value for micro-batches as described, in the precision in which it travels (targets as they are);
/// index = ModelGraph::values.
std::vector<double> value_bytes(const ModelGraph& graph, at::ScalarType precision);

}  // namespace lockstep
