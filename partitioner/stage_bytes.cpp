// SPDX-License-Identifier: Apache-2.0
#include "partitioner/stage_bytes.hpp"

#include <algorithm>

namespace lockstep {
namespace {

double forward_bytes(const std::vector<LayerBytes>& layers) {
  double alive = 0, most = 0;
  for (const LayerBytes& layer : layers) {
    most = std::max(most, alive + layer.forward_extra);
    alive += layer.held + layer.made - layer.passed;
  }
  return most;
}

/// What W of a layer needs: as in every micro-batch, or while it makes the gradients.
double weight_grad_bytes(const LayerBytes& layer, bool first) {
  return first ? std::max(layer.weight_grad_extra, layer.gradients) : layer.weight_grad_extra;
}

double backward_bytes(const std::vector<LayerBytes>& layers, bool with_weights, bool first) {
  double alive = 0, under_way = 0, gradients = 0;
  for (const LayerBytes& layer : layers) under_way += layer.loss_gradients;
  double most = under_way;
  for (const LayerBytes& layer : layers) alive -= layer.loss_held;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (!layer->has_backward) continue;
    under_way -= layer->loss_gradients;  // they are part of what its own I was seen to need
    const double before = alive + under_way + gradients;
    if (layer->again) most = std::max(most, before + layer->forward_extra);
    most = std::max(most, before + layer->made_again + layer->input_grad_extra);
    alive -= layer->held - layer->loss_held + layer->released;
    under_way += layer->input_gradients - layer->output_gradients;
    if (with_weights) {
      const double more = weight_grad_bytes(*layer, first) - layer->weight_grad_extra;
      most = std::max(most, before + layer->made_again + layer->backward_extra + more);
      if (first) gradients += layer->gradients;
    } else {
      alive += layer->held_w;
    }
  }
  return most;
}

double weight_bytes(const std::vector<LayerBytes>& layers, bool first) {
  double alive = 0, gradients = 0, most = 0;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (!layer->has_backward) continue;
    most = std::max(most, alive + gradients + weight_grad_bytes(*layer, first));
    alive -= layer->held_w;
    if (first) gradients += layer->gradients;
  }
  return most;
}

}  // namespace

ExtraBytes extra_bytes(const std::vector<LayerBytes>& layers, bool first) {
  ExtraBytes extra;
  extra.forward = forward_bytes(layers);
  extra.backward = backward_bytes(layers, true, first);
  extra.input_grad = backward_bytes(layers, false, false);
  extra.weight_grad = weight_bytes(layers, first);
  return extra;
}

}  // namespace lockstep
