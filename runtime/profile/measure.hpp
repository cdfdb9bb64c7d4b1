// SPDX-License-Identifier: Apache-2.0
//
// Measuring layers: each is built alone, with inputs that are made up, and run through F, I and W as a stage of one
// layer by the engine's own Stage. So a model that fits nowhere is measured on a laptop, and what is measured is what a
// worker will do.
//
// Between two runs of a layer a worker runs the rest of its stage, and what the layer had in the caches, data and code,
// is gone. So layers are measured in company: a group of them, as much as a worker will hold or as caches do
// (layer_groups.hpp), takes turns as the layers of a stage do.
//
//   round:   F of the first layer .. F of the last | I W of the last .. I W of the first       (all workers at once)
//
// The gradients of earlier rounds are there, as those of earlier micro-batches are in a step.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "partitioner/layer_groups.hpp"
#include "partitioner/profile_file.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/engine/updater.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/graph/partition.hpp"

namespace lockstep {

inline constexpr int kFewestRepeats = 3;

struct MeasureOptions {
  StageOptions stage;       ///< precision, device, seed; `recompute` is set here: weights are made, not drawn
  int threads = 1;          ///< intra-op
  int repeats = 100;        ///< rounds, after a tenth as many that are thrown away
  double most_seconds = 1;  ///< per layer and size: fewer repeats when layers take long, never fewer than 3
  int workers = 1;  ///< that many threads measure the same layers at the same time, as the workers of one machine will:
                    ///< they share memory bandwidth and cache
  bool clip = false;         ///< update_us has the layer's part of the global norm, and the scaling
  MakeUpdater make_updater;  ///< empty: update_us is 0
};

/// Type, options, shapes and dtypes of a layer in its place, and its losses, hashed: "gpt_block 0123456789abcdef".
/// Layers with equal signatures cost the same. The number of rows is not part of it. `losses`: by head.
std::string signature_of(const ModelGraph& graph, int layer, const Losses& losses);
/// What is hashed.
std::string signature_text(const ModelGraph& graph, int layer, const Losses& losses);

/// The partition that measure_layers() wants: a stage for every layer.
Partition one_layer_each(const ModelGraph& graph);

/// Layers to be measured together.
struct GroupToMeasure {
  const ModelGraph& graph;     ///< described for micro-batches of `rows` rows
  const Partition& partition;  ///< one_layer_each() of it
  const LayerGroup& group;
  std::int64_t rows;
  const Losses& losses;  ///< by head
  const MeasureOptions& options;
  const Tensors& data;  ///< ProfileRequest::read() of these rows, or none
};

/// One sample for each member of the group, over all its layers, which cost the same. Inputs are random values of the
/// described kind, integers of the data those that it has; the losses of heads that read a layer are computed too. A
/// layer without a backward takes no time in I and W. Throws what a layer throws (LayerError).
std::vector<LayerSample> measure_layers(const GroupToMeasure& what);

/// Runs the same rounds, for the sake of others that measure, until told to stop.
void keep_busy(const GroupToMeasure& what, const std::atomic<bool>& stop);

/// What goes into a layer and comes out of it, for micro-batches whose values have these bytes (value_bytes()).
double entry_bytes(const ModelGraph& graph, int layer, const std::vector<double>& values);

/// Bytes of every value for micro-batches as described, in the precision in which it travels (targets as they are);
/// index = ModelGraph::values.
std::vector<double> value_bytes(const ModelGraph& graph, at::ScalarType precision);
/// What a layer carries from step to step, for a mini-batch of so many rows.
double carried_bytes(const ModelGraph& graph, int layer, std::int64_t batch);

}  // namespace lockstep
