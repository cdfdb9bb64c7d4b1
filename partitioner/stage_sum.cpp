// SPDX-License-Identifier: Apache-2.0
#include "partitioner/stage_sum.hpp"

#include <algorithm>

#include "partitioner/stage_bytes.hpp"

namespace lockstep {
namespace {

class StageSum {
 public:
  StageSum(const CostModel& model, int kind, int first, int last, const Surroundings& around, bool again)
      : model_(model),
        kind_(kind),
        first_(first),
        last_(last),
        around_(around),
        again_(again),
        layers_(static_cast<std::size_t>(last - first)) {}

  StageCost run() {
    for (int layer = first_; layer < last_; ++layer) add_layer(layer);
    for (int layer = first_; layer < last_; ++layer) {
      for (const CostModel::Read& read : model_.reads(layer)) add_input(layer, read);
      for (const int id : model_.outputs(layer)) add_output(layer, id);
    }
    cost_.workspace = workspace_of(layers_, false);
    cost_.first_workspace = workspace_of(layers_, true);
    return cost_;
  }

 private:
  LayerBytes& bytes_of(int layer) { return layers_[static_cast<std::size_t>(layer - first_)]; }
  bool in_stage(int layer) const { return layer >= first_ && layer < last_; }

  /// What the layer itself takes.
  void add_layer(int layer) {
    const LayerCost& from = model_.cost(kind_, layer);
    LayerBytes& bytes = bytes_of(layer);
    const bool weights = model_.computes_weights(layer);
    bytes.has_backward = model_.layer_has_backward(layer);
    bytes.recomputed = again_ && bytes.has_backward && from.recomputable;
    cost_.forward_us += from.forward_us;
    bytes.forward_workspace = from.forward_workspace_bytes;
    if (!bytes.has_backward) return;
    cost_.input_grad_us += from.input_grad_us;
    if (weights) cost_.weight_grad_us += from.weight_grad_us;
    if (bytes.recomputed) cost_.recompute_us += from.forward_us;
    bytes.activations = bytes.recomputed ? from.recompute_activation_bytes : from.activation_bytes;
    bytes.recomputed_bytes =
        bytes.recomputed ? std::max(0.0, from.activation_bytes - from.recompute_activation_bytes) : 0.0;
    bytes.weight_grad = weights ? from.weight_grad_bytes : 0.0;
    bytes.gradients = model_.gradient_bytes(layer);
    bytes.input_grad_workspace = from.input_grad_workspace_bytes;
    bytes.weight_grad_workspace = weights ? from.weight_grad_workspace_bytes : 0.0;
    bytes.backward_workspace = weights ? from.backward_workspace_bytes : 0.0;
    cost_.activation_bytes += bytes.activations;
    cost_.weight_grad_bytes += bytes.weight_grad;
    cost_.gradient_bytes += bytes.gradients;
  }

  // What layers read, and so what the stage keeps for their backward although no layer holds it.

  void add_input(int layer, const CostModel::Read& read) {
    const LayerValue& from = model_.value(read.value);
    LayerBytes& bytes = bytes_of(layer);
    const double gradients = from.has_gradient && bytes.has_backward ? read.uses * model_.value_bytes(read.value) : 0.0;
    if (from.producer == layer) {  // by its loss
      bytes.loss_gradients += gradients;
      return;
    }
    bytes.input_gradients += gradients;
    if (in_stage(from.producer)) {
      bytes_of(from.producer).output_gradients += gradients;
      return;
    }
    // Made elsewhere. The data is there anyway, where layer 0 is.
    if (from.producer < 0 && (first_ == 0 || around_.made_nearby(0))) return;
    if (first_reader(read.value, first_) != layer) return;  // once, and only when a backward needs it
    if (from.producer >= 0 && model_.layer_has_backward(from.producer) && around_.made_nearby(from.producer)) return;
    keep(read.value, layer);
  }

  void add_output(int layer, int id) {
    LayerBytes& bytes = bytes_of(layer);
    if (bytes.has_backward && !bytes.recomputed) return;  // part of what the layer holds
    const auto& readers = model_.value(id).readers;
    if (bytes.recomputed && !readers.empty() && readers.front() == layer) {  // part of what its loss holds
      bytes.loss_activations = bytes.activations;
      bytes.recomputed_bytes += model_.value_bytes(id);
      return;
    }
    bytes.made += model_.value_bytes(id);
    const int reader = first_reader(id, layer);
    const bool nearby = bytes.recomputed && std::any_of(readers.begin(), readers.end(), [&](int other) {
                          return !in_stage(other) && model_.layer_has_backward(other) && around_.read_nearby(other);
                        });
    if (reader >= 0 || nearby)
      keep(id, reader >= 0 ? reader : layer);
    else if (!readers.empty() && readers.back() < last_)
      bytes_of(readers.back()).passed += model_.value_bytes(id);
  }

  /// Of the stage, from layer `begin` on, with a backward; -1: none.
  int first_reader(int id, int begin) const {
    const auto& readers = model_.value(id).readers;
    for (auto reader = std::lower_bound(readers.begin(), readers.end(), begin); reader != readers.end(); ++reader) {
      if (*reader >= last_) break;
      if (model_.layer_has_backward(*reader)) return *reader;
    }
    return -1;
  }

  void keep(int id, int until) {
    cost_.activation_bytes += model_.value_bytes(id);
    bytes_of(until).released += model_.value_bytes(id);
  }

  const CostModel& model_;
  const int kind_, first_, last_;
  const Surroundings& around_;
  const bool again_;
  std::vector<LayerBytes> layers_;
  StageCost cost_;
};

}  // namespace

StageCost add_up(const CostModel& model, int kind, int first, int last, const Surroundings& around, bool again) {
  return StageSum(model, kind, first, last, around, again).run();
}

}  // namespace lockstep
