// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/topology.hpp"

#include <algorithm>

namespace lockstep {

Topology chain_topology(int stages) {
  Topology topology;
  topology.stages = stages;
  for (int s = 0; s + 1 < stages; ++s) {
    topology.flows.push_back({StageId(s), StageId(s + 1), true});
    if (s == 0 && stages > 2) topology.flows.push_back({StageId(0), StageId(stages - 1), false});
  }
  topology.has_backward.assign(static_cast<std::size_t>(stages), true);
  topology.has_weight_grad.assign(static_cast<std::size_t>(stages), true);
  return topology;
}

bool sends_gradient_back(const Topology& topology, const Flow& flow) {
  return flow.differentiable && topology.has_backward[index(flow.from)];
}

StageGraph stage_graph(const Topology& topology) {
  StageGraph graph;
  graph.producers_of.resize(static_cast<std::size_t>(topology.stages));
  graph.consumers_of.resize(static_cast<std::size_t>(topology.stages));
  for (const Flow& flow : topology.flows) {
    graph.producers_of[index(flow.to)].push_back(flow.from);
    if (sends_gradient_back(topology, flow)) graph.consumers_of[index(flow.from)].push_back(flow.to);
  }
  for (auto* lists : {&graph.producers_of, &graph.consumers_of}) {
    for (std::vector<StageId>& list : *lists) std::sort(list.begin(), list.end());
  }
  return graph;
}

}  // namespace lockstep
