// SPDX-License-Identifier: Apache-2.0
//
// What a stage needs while it runs, from what its layers need: the walks of Stage (runtime/engine/stage.cpp) on paper.
#pragma once

#include <vector>

#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// One layer in its stage, for one micro-batch. Bytes.
struct LayerBytes {
  bool has_backward = true;
  bool recomputed = false;      ///< its forward is run again before its I
  double activations = 0;       ///< by the layer itself from F to I
  double recomputed_bytes = 0;  ///< what running it again brings back, until its I is done
  double weight_grad = 0;       ///< from I to W
  double gradients = 0;         ///< of its trainable parameters
  double forward_workspace = 0, input_grad_workspace = 0, weight_grad_workspace = 0,
         backward_workspace = 0;  ///< as in LayerCost
  // Values between layers:
  double made = 0;              ///< outputs that are alive after its F and not part of `activations`
  double passed = 0;            ///< made by layers before it; its F is the last that needs them
  double released = 0;          ///< kept for its backward; nobody needs them after its I
  double output_gradients = 0;  ///< of its outputs, made by I of layers of the stage
  double loss_gradients = 0;    ///< of its outputs, made by a loss when B or I begins
  double loss_activations = 0;  ///< of `activations`: gone when they have been made
  double input_gradients = 0;   ///< made by its I
};

/// The most that is alive during each action beyond what was when it began, gradients from outside included.
///
/// F runs the layers in order. B and I take the gradients of the losses first, then run the layers from the last to the
/// first: each one's forward once more if it is run again, its I, and for B its W. W runs from the last to the first.
///
/// `first`: the parameters' gradients are not there yet; each layer's W makes its own. The first product becomes the
/// gradient, later ones are added to it.
Workspace workspace_of(const std::vector<LayerBytes>& layers, bool first);

}  // namespace lockstep
