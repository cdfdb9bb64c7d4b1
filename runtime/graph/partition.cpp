// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/partition.hpp"

#include <algorithm>
#include <numeric>

namespace lockstep {
namespace {

void check_counts(const ModelGraph& graph, const std::vector<int>& counts) {
  const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const bool positive = std::all_of(counts.begin(), counts.end(), [](int count) { return count >= 1; });
  if (!positive || total != graph.layer_count())
    throw UserError(concat("the partition [", join(counts), "] has ", total, " layers in ", counts.size(),
                           " stages; the model has ", graph.layer_count(),
                           " layers, and every stage needs at least one"));
}

FlowContents contents_of(const ModelGraph& graph, const Partition& partition, const FlowValues& flow) {
  FlowContents contents{flow.flow.from, flow.flow.to, flow.values, {}};
  for (const int id : flow.values) {
    if (!graph.values[id].requires_grad) continue;
    const std::vector<Use>& uses = graph.values[id].uses;
    for (auto use = uses.rbegin(); use != uses.rend(); ++use)
      if (partition.stage_of(use->layer) == flow.flow.to) contents.gradients.push_back({id, *use});
  }
  return contents;
}

}  // namespace

LayerRange Partition::layers_of(StageId stage) const {
  const std::size_t here = index(topology.in_replica(stage, 0));
  return {first_layer[here], first_layer[here + 1]};
}

StageId Partition::stage_of(int layer) const {
  if (layer >= first_layer.back()) layer = head_layer[layer - first_layer.back()];
  return stage_of_layer(first_layer, layer);
}

LayerGraph layer_graph_of(const ModelGraph& graph) {
  LayerGraph result;
  for (const LayerSpec& layer : graph.layers) result.names.push_back(layer.name);
  for (const Value& value : graph.values) {
    LayerValue& entry = result.values.emplace_back();
    entry.producer = value.producer;
    entry.has_gradient = value.requires_grad;
    for (const Use& use : value.uses) {
      const int head = use.layer - graph.layer_count();
      entry.readers.push_back(head < 0 ? use.layer : graph.heads[head].layer);
    }
    std::sort(entry.readers.begin(), entry.readers.end());
  }
  for (const ParameterInfo& parameter : graph.parameters)
    result.parameters.push_back({parameter.holders, parameter.trainable, parameter.elements(),
                                 static_cast<double>(c10::elementSize(parameter.dtype)),
                                 parameter.is_sparse ? parameter.gradient_elements() : -1});
  result.trainable = graph.trainable;
  result.has_backward = graph.has_backward;
  for (const std::vector<int>& buffers : graph.held_buffers) result.has_buffers.push_back(!buffers.empty());
  return result;
}

Partition cut(const ModelGraph& graph, const std::vector<int>& layers_per_stage, const Replicas& replicas) {
  check_counts(graph, layers_per_stage);
  Partition partition;
  partition.first_layer = first_layers(layers_per_stage);
  for (const GraphHead& head : graph.heads) partition.head_layer.push_back(head.layer);
  const LayerGraph layers = layer_graph_of(graph);
  partition.topology = topology_of(layers, partition.first_layer);
  for (const FlowValues& flow : flows_of(layers, partition.first_layer))
    partition.flows.push_back(contents_of(graph, partition, flow));
  const std::vector<FlowContents> of_one = partition.flows;
  partition.topology = replicated(partition.topology, replicas);
  for (int replica = 1; replica < replicas.count; ++replica)
    for (FlowContents flow : of_one) {
      for (StageId* end : {&flow.from, &flow.to}) *end = partition.topology.in_replica(*end, replica);
      partition.flows.push_back(std::move(flow));
    }
  return partition;
}

}  // namespace lockstep
