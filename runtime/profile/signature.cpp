// SPDX-License-Identifier: Apache-2.0
//
// What tells layers apart that cost different, and what their values weigh.
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <iomanip>
#include <set>
#include <sstream>

#include "runtime/layer/random.hpp"
#include "runtime/profile/measure.hpp"

namespace lockstep {
namespace {

std::string text_of(const EntrySpec& entry) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : entry.sizes) sizes.push_back(std::to_string(size));
  if (entry.batched && !sizes.empty()) sizes[0] = "rows";
  return concat(c10::toString(entry.dtype), " [", join(sizes), "]", entry.below > 0 ? concat(" < ", entry.below) : "");
}

/// Values that the layer reads twice are one input: what is held of them is held once.
std::string inputs_text(const ModelGraph& graph, int layer) {
  std::string text;
  const std::vector<int>& inputs = graph.inputs[layer];
  for (auto input = inputs.begin(); input != inputs.end(); ++input) {
    const Value& value = graph.values[*input];
    const auto first = std::find(inputs.begin(), input, *input);
    text += concat("; in ", text_of(value.spec), value.requires_grad ? " grad" : "", value.producer < 0 ? " data" : "");
    if (first != input) text += concat(" as input ", first - inputs.begin());
  }
  return text;
}

std::string outputs_text(const ModelGraph& graph, int layer) {
  std::string text;
  for (const int id : graph.outputs[layer]) {
    const Value& value = graph.values[id];
    text += concat("; out ", text_of(value.spec), value.requires_grad ? " grad" : "", " uses ", value.uses.size());
  }
  return text;
}

}  // namespace

std::string signature_text(const ModelGraph& graph, int layer, const Losses& losses) {
  const LayerSpec& spec = graph.layers[layer];
  std::string text = concat(spec.layer->type(), " {", spec.layer->options(), "}", inputs_text(graph, layer),
                            outputs_text(graph, layer));
  for (const HeldParameter& held : graph.held[layer]) {
    const ParameterInfo& parameter = graph.parameters[held.index];
    text += concat("; parameter ", held.local_name, " [", join(parameter.sizes), "]",
                   parameter.trainable ? "" : " frozen", parameter.holders.size() > 1 ? " tied" : "");
  }
  for (const int index : graph.held_buffers[layer]) {
    const BufferInfo& buffer = graph.buffers[index];
    std::vector<std::int64_t> sizes = buffer.sizes;
    if (buffer.is_state) sizes.erase(sizes.begin());  // a row
    text += concat(buffer.is_state ? "; state " : "; buffer ", buffer.local_name, " ", c10::toString(buffer.dtype),
                   " [", join(sizes), "]");
  }
  for (int head = 0; head < graph.head_count(); ++head)
    if (const GraphHead& here = graph.heads[head]; here.layer == layer)
      text += concat("; loss ", losses[head]->name(), " against ", text_of(graph.values[here.targets].spec),
                     here.weights >= 0 ? " weighted" : "");
  return text;
}

std::string signature_of(const ModelGraph& graph, int layer, const Losses& losses) {
  std::ostringstream out;
  out << graph.layers[layer].layer->type() << " " << std::hex << std::setw(16) << std::setfill('0')
      << mix_seed(0, 0, 0, signature_text(graph, layer, losses));
  return out.str();
}

Partition one_layer_each(const ModelGraph& graph) {
  return cut(graph, std::vector<int>(static_cast<std::size_t>(graph.layer_count()), 1));
}

double entry_bytes(const ModelGraph& graph, int layer, const std::vector<double>& values) {
  double bytes = 0;
  for (const auto* ids : {&graph.inputs[layer], &graph.outputs[layer]})
    for (const int id : *ids) bytes += values[id];
  return bytes;
}

std::vector<double> value_bytes(const ModelGraph& graph, at::ScalarType precision) {
  std::vector<double> bytes;
  for (int id = 0; id < static_cast<int>(graph.values.size()); ++id) {
    const EntrySpec& entry = graph.values[id].spec;
    const bool casts = at::isFloatingType(entry.dtype) && !graph.is_for_losses(id);
    double size = static_cast<double>(c10::elementSize(casts ? precision : entry.dtype));
    for (const std::int64_t extent : entry.sizes) size *= static_cast<double>(extent);
    bytes.push_back(size);
  }
  return bytes;
}

double carried_bytes(const ModelGraph& graph, int layer, std::int64_t batch) {
  double bytes = 0;
  for (const int index : graph.held_buffers[layer]) {
    const BufferInfo& buffer = graph.buffers[index];
    if (!buffer.is_state) continue;
    auto of_row = static_cast<double>(c10::elementSize(buffer.dtype));
    for (std::size_t d = 1; d < buffer.sizes.size(); ++d) of_row *= static_cast<double>(buffer.sizes[d]);
    bytes += of_row * static_cast<double>(batch);
  }
  return bytes;
}

}  // namespace lockstep
