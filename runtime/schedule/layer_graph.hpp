// SPDX-License-Identifier: Apache-2.0
//
// The data flow between the layers of a model, without tensors: what cutting it into stages needs to know. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/topology.hpp"

namespace lockstep {

/// One entry, written once.
struct LayerValue {
  int producer = -1;          ///< layer; -1: the data, which is read where layer 0 is
  std::vector<int> readers;   ///< layers, ascending, one entry per use; a loss counts as its layer
  bool has_gradient = false;  ///< every reader sends one back
};

/// One stored parameter.
struct LayerParameter {
  std::vector<int> holders;  ///< layers, ascending; several: a tie
  bool trainable = true;
  std::int64_t elements = 0;
  double element_bytes = 0;           ///< that its value is kept in; 0: as what is trained
  std::int64_t sparse_elements = -1;  ///< of a mini-batch's gradient, of a few rows, at most; -1: it is of all elements
  std::int64_t gradient_elements() const { return sparse_elements < 0 ? elements : sparse_elements; }
  Divided divided() const {
    return sparse_elements < 0 ? Divided(elements) : Divided::sparse(elements, sparse_elements);
  }
};

struct LayerGraph {
  std::vector<std::string> names;  ///< of the layers
  std::vector<LayerValue> values;
  std::vector<LayerParameter> parameters;
  std::vector<bool> trainable;         ///< per layer: holds a trainable parameter
  std::vector<bool> has_backward;      ///< per layer: one of its outputs has a gradient
  std::vector<bool> has_buffers = {};  ///< per layer; empty: none has any

  int layers() const { return static_cast<int>(names.size()); }
};

/// A flow with the values that travel in it, ascending indices of LayerGraph::values.
struct FlowValues {
  Flow flow;
  std::vector<int> values;
};

/// Where cuts are: `first_layer` has an entry per stage, ascending from 0, and a last one, the number of layers.
StageId stage_of_layer(const std::vector<int>& first_layer, int layer);
std::vector<int> first_layers(const std::vector<int>& layers_per_stage);

/// Parallel to Topology::flows.
std::vector<FlowValues> flows_of(const LayerGraph& graph, const std::vector<int>& first_layer);

/// Topology::shared are the trainable parameters with several holders, in order.
Topology topology_of(const LayerGraph& graph, const std::vector<int>& first_layer);

}  // namespace lockstep
