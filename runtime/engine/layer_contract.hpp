// SPDX-License-Identifier: Apache-2.0
//
// What a layer promises (layer.hpp), checked where it is run. Whoever breaks a promise is told so by name, as the
// mistake of whoever wrote the layer (ModelError): the layers around it would fail with something that says nothing.
#pragma once

#include "runtime/graph/model_graph.hpp"

namespace lockstep {

/// A layer failed: the message has the layer, what it was at and the input shapes; or a parameter could not be made.
class LayerError : public Error {
 public:
  using Error::Error;
};

/// What it says, without LibTorch's stack of C++ frames, which says nothing to whoever wrote the layer.
std::string short_message(const std::exception& error);

/// Number, types and shapes of what forward() returned against describe(): shapes where the inputs have the very sizes
/// that were described, types always. `outputs` in the order of LayerSpec::outputs.
void check_outputs(const ModelGraph& graph, int layer, const Tensors& inputs, const Tensors& outputs);

/// Output `position` of a layer that is trained came without a graph. That may be meant (a value that is passed on),
/// but not when a parameter is trained through this output alone.
void check_detached(const ModelGraph& graph, int layer, int position);

/// A parameter that is trained had no gradient at the end of a step.
[[noreturn]] void refuse_unused(const ModelGraph& graph, int parameter);

}  // namespace lockstep
