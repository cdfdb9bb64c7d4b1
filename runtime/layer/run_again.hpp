// SPDX-License-Identifier: Apache-2.0
//
// A function inside a layer's forward whose activations are not kept (Chen et al., "Training Deep Nets with Sublinear
// Memory Cost", 2016; of attention alone: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
// Models", 2022).
#pragma once

#include <functional>

#include "runtime/layer/layer.hpp"

namespace lockstep {

/// of(inputs), which keeps the inputs alone from here to the backward; there it runs once more, draws the same random
/// numbers, and its graph lives until the gradients are computed. The same bits as of(inputs), as long as it computes
/// one tensor from floating-point inputs and leaves nothing behind. Parameters are among the inputs or are not used.
at::Tensor run_again_in_backward(const Tensors& inputs, std::function<at::Tensor(const Tensors&)> of);

}  // namespace lockstep
