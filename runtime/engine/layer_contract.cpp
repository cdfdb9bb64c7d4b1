// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/layer_contract.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "runtime/engine/memory.hpp"

namespace lockstep {
namespace {

std::string got_text(const at::Tensor& tensor) {
  return concat(c10::toString(tensor.scalar_type()), " [", join(tensor.sizes()), "]");
}

bool have_described_sizes(const ModelGraph& graph, int layer, const Tensors& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].sizes() != at::IntArrayRef(graph.values[graph.inputs[layer][i]].spec.sizes)) return false;
  return true;
}

}  // namespace

std::string short_message(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  if (!torch_error) return error.what();
  const std::string message = torch_error->what_without_backtrace();
  if (!dynamic_cast<const c10::OutOfMemoryError*>(&error)) return message;
  return concat("out of memory of the device: ", message.substr(0, message.find('\n')), "; this worker's tensors hold ",
                MemoryPool::held_by_this_thread(),
                " there; use more micro-batches, pipeline.recompute, or more stages, and see to it that nobody else "
                "uses the device");
}

void check_outputs(const ModelGraph& graph, int layer, const Tensors& inputs, const Tensors& outputs) {
  const std::vector<int>& described = graph.outputs[layer];
  if (outputs.size() != described.size())
    throw ModelError(concat("forward() returned ", outputs.size(), " tensors, describe() says ", described.size()));
  const bool same_sizes = have_described_sizes(graph, layer, inputs);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const EntrySpec& spec = graph.values[described[i]].spec;
    if (!outputs[i].defined())
      throw ModelError(concat("forward() returned no tensor for its output '", spec.name, "'"));
    // Floating types may differ: of bfloat16 inputs and float32 parameters a layer may make either.
    const bool floating = at::isFloatingType(spec.dtype) && at::isFloatingType(outputs[i].scalar_type());
    const bool same_type = floating || outputs[i].scalar_type() == spec.dtype;
    if (same_type && (!same_sizes || outputs[i].sizes() == at::IntArrayRef(spec.sizes))) continue;
    throw ModelError(concat("forward() returned ", got_text(outputs[i]), " for its output '", spec.name,
                            "', describe() says ", to_string(spec)));
  }
}

void check_detached(const ModelGraph& graph, int layer, int position) {
  const int lost = first_untrained(graph, graph.outputs[layer][position]);
  if (lost < 0) return;
  throw ModelError(
      concat(layer_text(graph.layers[layer]), ": its output '", graph.layers[layer].outputs[position],
             "' depends neither on its inputs nor on its parameters (detach(), NoGradGuard, or a constant), "
             "so ",
             graph.parameters[lost].name, " would get no gradient; use differentiable operators, or freeze ",
             "what is not to be trained (train.freeze)"));
}

void refuse_unused(const ModelGraph& graph, int parameter) {
  const ParameterInfo& info = graph.parameters[parameter];
  throw ModelError(
      concat(layer_text(graph.layers[info.holders.front()]), ": its parameter ", info.name,
             " got no gradient in this step: forward() does not use it, or not differentiably; use it, leave "
             "it out of describe(), or freeze it (train.freeze)"));
}

}  // namespace lockstep
