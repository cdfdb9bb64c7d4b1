// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/topology.hpp"

#include <algorithm>
#include <utility>

#include "runtime/base/error.hpp"

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
  topology.has_statistics.assign(static_cast<std::size_t>(stages), false);
  for (int s = 0; s < stages; ++s) topology.buckets.push_back({StageId(s)});
  return topology;
}

std::string stages_text(const Topology& topology) {
  const int of_each = topology.stages_of_replica();
  const std::string stages = concat(of_each, of_each == 1 ? " stage" : " stages");
  return topology.replicas.count == 1 ? stages : concat(topology.replicas.count, " replicas of ", stages);
}

Topology replicated(const Topology& one, const Replicas& replicas) {
  Topology all = one;
  all.stages *= replicas.count;
  all.replicas = replicas;
  for (int replica = 1; replica < replicas.count; ++replica) {
    const auto here = [&](StageId stage) { return StageId(stage.value() + replica * one.stages); };
    for (const Flow& flow : one.flows) all.flows.push_back({here(flow.from), here(flow.to), flow.differentiable});
    for (Shared shared : one.shared) {
      for (StageId& holder : shared.holders) holder = here(holder);
      all.shared.push_back(std::move(shared));
    }
    for (auto flags : {&Topology::has_backward, &Topology::has_weight_grad, &Topology::has_statistics})
      (all.*flags).insert((all.*flags).end(), (one.*flags).begin(), (one.*flags).end());
  }
  return all;
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
