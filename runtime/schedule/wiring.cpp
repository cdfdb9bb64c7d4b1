// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/wiring.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/base/check.hpp"

namespace lockstep {

namespace {

using Key = std::tuple<EdgeKind, StageId, StageId>;

/// The first edge and the number of lanes of every flow and direction.
std::map<Key, std::pair<EdgeId, int>> channels(const std::vector<Edge>& edges) {
  std::map<Key, std::pair<EdgeId, int>> found;
  for (std::size_t i = 0; i < edges.size(); ++i) {
    const Edge& edge = edges[i];
    if (edge.kind != EdgeKind::value && edge.kind != EdgeKind::gradient) continue;
    auto& [first, count] = found[{edge.kind, edge.from_stage, edge.to_stage}];
    if (count++ == 0) first = EdgeId(static_cast<int>(i));
  }
  return found;
}

}  // namespace

Wiring::Wiring(const Topology& topology, const std::vector<Edge>& edges, const std::vector<WorkerId>& row_of_stage) {
  const auto stages = static_cast<std::size_t>(topology.stages);
  for (Table* table : {&inputs_, &outputs_}) table->fill(std::vector<std::vector<Channel>>(stages));
  const StageGraph graph = stage_graph(topology);
  const auto by_flow = channels(edges);
  for (int s = 0; s < topology.stages; ++s) {
    const StageId reader(s);
    for (const Op op : {Op::forward, Op::input_grad}) {
      const std::size_t direction = op == Op::forward ? 0 : 1;
      const EdgeKind kind = op == Op::forward ? EdgeKind::value : EdgeKind::gradient;
      for (const Action& required : required_before({reader, op, 0}, graph)) {
        if (row_of_stage[index(required.stage)] == row_of_stage[index(reader)]) continue;
        const auto found = by_flow.find({kind, required.stage, reader});
        LOCKSTEP_CHECK(found != by_flow.end(), "no ", to_string(kind), " edge ", required.stage, "->", reader);
        const Channel channel{found->second.first, found->second.second, required};
        inputs_[direction][index(reader)].push_back(channel);
        outputs_[direction][index(required.stage)].push_back(channel);
      }
    }
  }
  const auto by_edge = [](const Channel& a, const Channel& b) { return a.first < b.first; };
  for (Table* table : {&inputs_, &outputs_}) {
    for (auto& direction : *table) {
      for (auto& list : direction) std::sort(list.begin(), list.end(), by_edge);
    }
  }
}

std::vector<EdgeMessage> Wiring::messages(const Table& table, const Action& action) {
  std::vector<EdgeMessage> found;
  if (action.op == Op::weight_grad) return found;
  const std::vector<Channel>& list = table[action.op == Op::forward ? 0 : 1][index(action.stage)];
  found.reserve(list.size());
  for (const Channel& channel : list) {
    found.push_back({EdgeId(channel.first.value() + action.micro_batch % channel.lanes),
                     {channel.action.stage, channel.action.op, action.micro_batch}});
  }
  return found;
}

}  // namespace lockstep
