// SPDX-License-Identifier: Apache-2.0
#include "partitioner/stage_bytes.hpp"

#include <algorithm>

namespace lockstep {
namespace {

double forward_bytes(const std::vector<LayerBytes>& layers) {
  double alive = 0, most = 0;
  for (const LayerBytes& layer : layers) {
    most = std::max(most, alive + layer.forward_workspace);
    alive += layer.activations + layer.made - layer.passed;
  }
  return most;
}

/// What W of a layer needs: as in every micro-batch, or while it makes the gradients.
double weight_grad_peak(const LayerBytes& layer, bool first) {
  return first ? std::max(layer.weight_grad_workspace, layer.gradients) : layer.weight_grad_workspace;
}

double backward_bytes(const std::vector<LayerBytes>& layers, bool with_weights, bool first) {
  double alive = 0, under_way = 0, gradients = 0;
  for (const LayerBytes& layer : layers) under_way += layer.loss_gradients;
  double most = under_way;
  for (const LayerBytes& layer : layers) alive -= layer.loss_activations;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (!layer->has_backward) continue;
    under_way -= layer->loss_gradients;  // they are part of what its own I was seen to need
    const double before = alive + under_way + gradients;
    if (layer->recomputed) most = std::max(most, before + layer->forward_workspace);
    most = std::max(most, before + layer->recomputed_bytes + layer->input_grad_workspace);
    alive -= layer->activations - layer->loss_activations + layer->released;
    under_way += layer->input_gradients - layer->output_gradients;
    if (with_weights) {
      const double more = weight_grad_peak(*layer, first) - layer->weight_grad_workspace;
      most = std::max(most, before + layer->recomputed_bytes + layer->backward_workspace + more);
      if (first) gradients += layer->gradients;
    } else {
      alive += layer->weight_grad;
    }
  }
  return most;
}

double weight_bytes(const std::vector<LayerBytes>& layers, bool first) {
  double alive = 0, gradients = 0, most = 0;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (!layer->has_backward) continue;
    most = std::max(most, alive + gradients + weight_grad_peak(*layer, first));
    alive -= layer->weight_grad;
    if (first) gradients += layer->gradients;
  }
  return most;
}

}  // namespace

Workspace workspace_of(const std::vector<LayerBytes>& layers, bool first) {
  Workspace workspace;
  workspace.forward = forward_bytes(layers);
  workspace.backward = backward_bytes(layers, true, first);
  workspace.input_grad = backward_bytes(layers, false, false);
  workspace.weight_grad = weight_bytes(layers, first);
  return workspace;
}

}  // namespace lockstep
