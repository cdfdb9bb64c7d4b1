// SPDX-License-Identifier: Apache-2.0
//
// A model graph cut into stages: what travels between them.
#pragma once

#include <vector>

#include "runtime/graph/model_graph.hpp"
#include "runtime/schedule/layer_graph.hpp"

namespace lockstep {

/// The gradient that one use of a value sends back to the value's producer.
struct UseGradient {
  int value = 0;
  Use use;
};

/// Contents of the messages of one flow, in order.
struct FlowContents {
  StageId from, to;
  std::vector<int> values;             ///< value message
  std::vector<UseGradient> gradients;  ///< gradient message: per value one entry per reading layer. They are added
                                       ///< where the value was made, from the last reader to the first, so that no cut
                                       ///< changes the order of additions.
};

/// Layers [first, end).
struct LayerRange {
  int first = 0, end = 0;
};

struct Partition {
  std::vector<int> first_layer;  ///< per stage of one replica; plus one final entry: the number of layers
  std::vector<int> head_layer;   ///< per head: the layer it lives with (GraphHead::layer)
  Topology topology;
  std::vector<FlowContents> flows;  ///< parallel to topology.flows

  int stages() const { return topology.stages; }  ///< of all replicas
  LayerRange layers_of(StageId stage) const;
  /// Of the first replica. Head h (layer number = layers + h) lives where its output is made.
  StageId stage_of(int layer) const;
};

/// The graph without its tensors. A loss reads where it lives (GraphHead::layer).
LayerGraph layer_graph_of(const ModelGraph& graph);

/// `layers_per_stage`: as many entries as stages, each >= 1, summing to the number of layers (else UserError).
Partition cut(const ModelGraph& graph, const std::vector<int>& layers_per_stage, const Replicas& replicas = {});

}  // namespace lockstep
