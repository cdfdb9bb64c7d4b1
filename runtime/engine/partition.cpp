// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/partition.hpp"

#include <algorithm>
#include <map>
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

// Values by (producing stage, reading stage), in value order.
std::map<std::pair<StageId, StageId>, std::vector<int>> travelling_values(const ModelGraph& graph,
                                                                          const Partition& partition) {
  std::map<std::pair<StageId, StageId>, std::vector<int>> travelling;
  for (int id = 0; id < static_cast<int>(graph.values.size()); ++id) {
    const Value& value = graph.values[id];
    const StageId from = partition.stage_of(std::max(value.producer, 0));  // data is read where stage 0 lives
    for (const Use& use : value.uses) {
      const StageId to = partition.stage_of(use.layer);
      if (to == from) continue;
      std::vector<int>& values = travelling[{from, to}];
      if (values.empty() || values.back() != id) values.push_back(id);
    }
  }
  return travelling;
}

void add_flows(const ModelGraph& graph, Partition& partition) {
  for (auto& [stages, values] : travelling_values(graph, partition)) {
    FlowContents flow{stages.first, stages.second, values, {}};
    for (const int id : values) {
      if (!graph.values[id].requires_grad) continue;
      const std::vector<Use>& uses = graph.values[id].uses;
      for (auto use = uses.rbegin(); use != uses.rend(); ++use)
        if (partition.stage_of(use->layer) == flow.to) flow.gradients.push_back({id, *use});
    }
    partition.topology.flows.push_back({flow.from, flow.to, !flow.gradients.empty()});
    partition.flows.push_back(std::move(flow));
  }
}

void add_ties(const ModelGraph& graph, Partition& partition) {
  for (int index = 0; index < static_cast<int>(graph.parameters.size()); ++index) {
    const ParameterInfo& parameter = graph.parameters[index];
    if (parameter.holders.size() < 2 || !parameter.trainable) continue;
    Tie tie;
    for (const int layer : parameter.holders) tie.holders.push_back(partition.stage_of(layer));
    partition.topology.ties.push_back(std::move(tie));
    partition.ties.push_back({index, parameter.holders});
  }
}

}  // namespace

StageId Partition::stage_of(int layer) const {
  if (layer >= first_layer.back()) layer = head_layer[layer - first_layer.back()];
  const auto after = std::upper_bound(first_layer.begin(), first_layer.end() - 1, layer);
  return StageId(static_cast<int>(after - first_layer.begin()) - 1);
}

Partition cut(const ModelGraph& graph, const std::vector<int>& layers_per_stage) {
  check_counts(graph, layers_per_stage);
  Partition partition;
  partition.first_layer = {0};
  for (const int count : layers_per_stage) partition.first_layer.push_back(partition.first_layer.back() + count);
  for (const GraphHead& head : graph.heads) partition.head_layer.push_back(head.layer);
  partition.topology.stages = partition.stages();
  for (int stage = 0; stage < partition.stages(); ++stage) {
    bool backward = false, weights = false;
    for (int layer = partition.first_layer[stage]; layer < partition.first_layer[stage + 1]; ++layer) {
      backward = backward || graph.has_backward[layer];
      weights = weights || graph.trainable[layer];
    }
    partition.topology.has_backward.push_back(backward);
    partition.topology.has_weight_grad.push_back(weights);
  }
  add_flows(graph, partition);
  add_ties(graph, partition);
  return partition;
}

}  // namespace lockstep
