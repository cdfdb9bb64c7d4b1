// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/layer_graph.hpp"

#include <algorithm>
#include <map>

namespace lockstep {

StageId stage_of_layer(const std::vector<int>& first_layer, int layer) {
  const auto after = std::upper_bound(first_layer.begin(), first_layer.end() - 1, layer);
  return StageId(static_cast<int>(after - first_layer.begin()) - 1);
}

std::vector<int> first_layers(const std::vector<int>& layers_per_stage) {
  std::vector<int> first = {0};
  for (const int count : layers_per_stage) first.push_back(first.back() + count);
  return first;
}

std::vector<FlowValues> flows_of(const LayerGraph& graph, const std::vector<int>& first_layer) {
  std::map<std::pair<StageId, StageId>, std::vector<int>> travelling;
  for (int id = 0; id < static_cast<int>(graph.values.size()); ++id) {
    const LayerValue& value = graph.values[static_cast<std::size_t>(id)];
    const StageId from = stage_of_layer(first_layer, std::max(value.producer, 0));
    for (const int reader : value.readers) {
      const StageId to = stage_of_layer(first_layer, reader);
      if (to == from) continue;
      std::vector<int>& values = travelling[{from, to}];
      if (values.empty() || values.back() != id) values.push_back(id);
    }
  }
  std::vector<FlowValues> flows;
  for (auto& [stages, values] : travelling) {
    const bool differentiable = std::any_of(
        values.begin(), values.end(), [&](int id) { return graph.values[static_cast<std::size_t>(id)].has_gradient; });
    flows.push_back({{stages.first, stages.second, differentiable}, std::move(values)});
  }
  return flows;
}

Topology topology_of(const LayerGraph& graph, const std::vector<int>& first_layer) {
  Topology topology;
  topology.stages = static_cast<int>(first_layer.size()) - 1;
  for (std::size_t stage = 0; stage + 1 < first_layer.size(); ++stage) {
    const auto any = [&](const std::vector<bool>& flags) {
      return std::find(flags.begin() + first_layer[stage], flags.begin() + first_layer[stage + 1], true) !=
             flags.begin() + first_layer[stage + 1];
    };
    topology.has_backward.push_back(any(graph.has_backward));
    topology.has_weight_grad.push_back(any(graph.trainable));
  }
  for (const FlowValues& flow : flows_of(graph, first_layer)) topology.flows.push_back(flow.flow);
  for (std::size_t i = 0; i < graph.parameters.size(); ++i) {
    const LayerParameter& parameter = graph.parameters[i];
    if (parameter.holders.size() < 2 || !parameter.trainable) continue;
    Shared& shared = topology.shared.emplace_back();
    for (const int layer : parameter.holders) shared.holders.push_back(stage_of_layer(first_layer, layer));
    shared.parameters = {static_cast<int>(i)};
  }
  return topology;
}

}  // namespace lockstep
