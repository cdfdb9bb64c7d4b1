// SPDX-License-Identifier: Apache-2.0
//
// The data flow between the layers of a model. Nothing here allocates a parameter: a model of any size can be described
// on any machine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/layer/loss.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep {

/// Reading of a value: by input `position` of `layer`. Head h counts as layer number `layers.size() + h`: after all
/// layers, in head order.
struct Use {
  int layer = 0;
  int position = 0;
};

/// One entry written once: by a layer, or by the data (producer -1).
struct Value {
  EntrySpec spec;
  int producer = -1;
  bool requires_grad = false;  ///< differentiable, and something at or before its producer is trained
  std::vector<Use> uses;       ///< ascending
};

/// A stored parameter of the model, in model order. A tied parameter is listed once, at its first holder.
struct ParameterInfo {
  std::string name;  ///< full name
  std::vector<std::int64_t> sizes;
  Init init;
  at::ScalarType dtype = at::kFloat;  ///< float32, or float64 with train.precision: fp64
  bool trainable = true;
  std::vector<int> holders;                 ///< layers that hold it, ascending
  std::optional<WeightLayout> linear = {};  ///< of a linear part
  bool is_base = false;                     ///< of a model that is adapted: neither trained nor saved
  bool is_sparse = false;                   ///< gradients and updates are those of the rows that were used
  std::int64_t used_rows = 0;               ///< sparse: the most of a mini-batch
  std::int64_t elements() const;
  /// Of a mini-batch's gradient, at most: of a sparse one the numbers of its rows count as two each.
  std::int64_t gradient_elements() const;
};

/// One parameter as a layer asked for it: `index` into ModelGraph::parameters.
struct HeldParameter {
  std::string local_name;
  int index = -1;
};

/// A buffer of one layer, in model order; states are among them.
struct BufferInfo {
  std::string name;  ///< full name
  std::string local_name;
  int layer = 0;
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
  double initial = 0.0;
  bool is_state = false;  ///< sizes[0] are the rows of a full mini-batch
};

/// What the description of a model depends on beside its layers and data.
struct GraphOptions {
  std::vector<std::string> frozen = {};  ///< shell patterns of parameter names that are not trained
  at::ScalarType masters = at::kFloat;   ///< what parameters and floating-point buffers are kept in
  /// What those of an adapted model are kept in that are read in the precision of the activations alone.
  at::ScalarType bases = at::kFloat;
  std::int64_t batch = 0;  ///< rows of a full mini-batch, for states; 0: the data's
};

/// A loss in its place.
struct GraphHead {
  int output = 0, targets = 0;  ///< value ids
  int source = 0;               ///< which of the data's entries the targets are
  int layer = 0;                ///< the layer that makes the output: the loss is computed on its stage
  double weight = 1.0;
  int weights = -1;  ///< value id of kSampleWeights; -1: the data has none
  int weights_source = -1;
};

struct ModelGraph {
  std::vector<LayerSpec> layers;
  std::vector<Value> values;
  std::vector<std::vector<int>> inputs;   ///< value ids per layer, then per head: {output, targets}, {.., weights}
  std::vector<std::vector<int>> outputs;  ///< value ids per layer
  std::vector<int> sources;               ///< value ids of the data's entries, in the data's order
  std::vector<ParameterInfo> parameters;
  std::vector<std::vector<HeldParameter>> held;  ///< per layer
  std::vector<GraphHead> heads;
  std::vector<BufferInfo> buffers;
  std::vector<std::vector<int>> held_buffers;  ///< per layer: indices into buffers
  std::int64_t least_rows = 1;                 ///< of a training micro-batch (LayerDescription::least_rows)
  int least_rows_layer = -1;                   ///< the layer that says so
  std::vector<bool> trainable;                 ///< per layer: holds a trainable parameter
  std::vector<bool> has_backward;              ///< per layer: one of its outputs requires grad

  int head_count() const { return static_cast<int>(heads.size()); }
  /// Whether losses read the value as it is in the data: targets, weights of samples.
  bool is_for_losses(int value) const;
  int layer_count() const { return static_cast<int>(layers.size()); }
  /// Of data whose first entry is sequences of tokens, int64 [rows, length]: the length; 0: of other data.
  std::int64_t tokens_per_sample() const;
  std::int64_t parameter_count() const;  ///< elements; ties once
  /// Elements held by a layer (ties count in every layer that holds them).
  std::int64_t elements_of_layer(int layer) const;
  /// Elements of the layers [first, last): what one stage of them stores (ties once).
  std::int64_t elements_of_layers(int first, int last) const;
};

/// The first trained parameter that no loss depends on, through differentiable values only, `without` (a value id; -1:
/// none) being cut off; -1 when there is none.
int first_untrained(const ModelGraph& graph, int without = -1);

/// Describes every layer in order and connects names. `data`: the entries of one micro-batch. Throws ModelError naming
/// the layer: unknown input entry (with the entries alive), shape mismatch, duplicate layer or parameter names, a tie
/// to something that does not exist or has another shape, targets that the data does not have, nothing left to train, a
/// parameter that no loss depends on. `losses`: one per head.
ModelGraph describe_model(const Model& model, const std::vector<EntrySpec>& data, const Losses& losses,
                          const GraphOptions& options = {});

/// The same of the layers alone, whatever losses would read: nothing is trained, and `data` has what layers read.
ModelGraph describe_layers(const Model& model, const std::vector<EntrySpec>& data);

}  // namespace lockstep
