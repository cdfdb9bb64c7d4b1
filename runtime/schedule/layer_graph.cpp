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

namespace {

void add_buckets(const LayerGraph& graph, Topology& topology, const std::vector<int>& first_layer) {
  const auto add = [&](StageId stage, const std::vector<int>& parameters, int shared, int holder) {
    std::vector<Divided> divided;
    for (const int p : parameters) divided.push_back(graph.parameters[static_cast<std::size_t>(p)].divided());
    topology.buckets.push_back({stage, parameters, Blocks(std::move(divided)), shared, holder});
  };
  std::vector<std::vector<int>> own(static_cast<std::size_t>(topology.stages));
  for (std::size_t p = 0; p < graph.parameters.size(); ++p)
    if (const LayerParameter& parameter = graph.parameters[p]; parameter.trainable && parameter.holders.size() == 1)
      own[index(stage_of_layer(first_layer, parameter.holders.front()))].push_back(static_cast<int>(p));
  for (std::size_t stage = 0; stage < own.size(); ++stage)
    if (!own[stage].empty()) add(StageId(static_cast<int>(stage)), own[stage], -1, -1);
  for (std::size_t i = 0; i < topology.shared.size(); ++i)
    for (std::size_t h = 0; h < topology.shared[i].holders.size(); ++h)
      add(topology.shared[i].holders[h], topology.shared[i].parameters, static_cast<int>(i), static_cast<int>(h));
}

}  // namespace

Topology topology_of(const LayerGraph& graph, const std::vector<int>& first_layer) {
  Topology topology;
  topology.stages = static_cast<int>(first_layer.size()) - 1;
  for (std::size_t stage = 0; stage + 1 < first_layer.size(); ++stage) {
    const auto any = [&](const std::vector<bool>& flags) {
      return !flags.empty() && std::find(flags.begin() + first_layer[stage], flags.begin() + first_layer[stage + 1],
                                         true) != flags.begin() + first_layer[stage + 1];
    };
    topology.has_backward.push_back(any(graph.has_backward));
    topology.has_weight_grad.push_back(any(graph.trainable));
    topology.has_statistics.push_back(any(graph.has_buffers));
  }
  for (const FlowValues& flow : flows_of(graph, first_layer)) topology.flows.push_back(flow.flow);
  for (std::size_t i = 0; i < graph.parameters.size(); ++i) {
    const LayerParameter& parameter = graph.parameters[i];
    if (parameter.holders.size() < 2 || !parameter.trainable) continue;
    Shared& shared = topology.shared.emplace_back();
    for (const int layer : parameter.holders) shared.holders.push_back(stage_of_layer(first_layer, layer));
    shared.parameters = {static_cast<int>(i)};
  }
  add_buckets(graph, topology, first_layer);
  return topology;
}

}  // namespace lockstep
