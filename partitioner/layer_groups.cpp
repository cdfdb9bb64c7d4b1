// SPDX-License-Identifier: Apache-2.0
#include "partitioner/layer_groups.hpp"

#include <algorithm>
#include <numeric>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kMostLayers = 256;  // in a group: enough of small ones

/// Layers of one kind on one of the workers.
int share_of(const AlikeLayers& kind, int workers) {
  return (static_cast<int>(kind.layers.size()) + workers - 1) / workers;
}

/// `count` layers, spread over those of the kind.
std::vector<int> spread(const AlikeLayers& kind, int count) {
  std::vector<int> layers;
  for (int i = 0; i < count; ++i) {
    const auto there = kind.layers.size();
    layers.push_back(kind.layers[static_cast<std::size_t>(i) * there / static_cast<std::size_t>(count)]);
  }
  return layers;
}

/// Of a group, how many layers of each of its kinds: one, and more in proportion to `share` until it has the bytes.
std::vector<int> counts_for(const std::vector<const AlikeLayers*>& kinds, const std::vector<int>& share, double bytes) {
  std::vector<int> counts(kinds.size(), 1);
  double held = 0;
  for (const AlikeLayers* kind : kinds) held += kind->bytes;
  for (std::size_t layers = kinds.size(); held < bytes && layers < kMostLayers; ++layers) {
    std::size_t next = 0;
    for (std::size_t k = 1; k < kinds.size(); ++k)
      if (counts[k] * share[next] < counts[next] * share[k]) next = k;
    ++counts[next];
    held += kinds[next]->bytes;
  }
  return counts;
}

}  // namespace

std::vector<LayerGroup> layer_groups(const std::vector<AlikeLayers>& kinds, int workers, double cache_bytes) {
  LOCKSTEP_CHECK(workers >= 1, "workers ", workers);
  std::vector<int> share;
  double whole = 0;
  for (const AlikeLayers& kind : kinds) {
    share.push_back(share_of(kind, workers));
    whole += share.back() * kind.bytes;
  }
  // The smallest first: they are each other's company.
  std::vector<int> by_size(kinds.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  std::stable_sort(by_size.begin(), by_size.end(), [&](int a, int b) { return kinds[a].bytes < kinds[b].bytes; });
  std::vector<LayerGroup> groups;
  double held = 0;
  for (const int kind : by_size) {
    held += kinds[kind].bytes;
    if (groups.empty() || (whole > cache_bytes && held > cache_bytes)) {
      groups.emplace_back();
      held = kinds[kind].bytes;
    }
    groups.back().members.push_back({kind, {}});
  }
  for (LayerGroup& group : groups) {
    std::vector<const AlikeLayers*> here;
    std::vector<int> share_here;
    for (const LayerGroup::Member& member : group.members) {
      here.push_back(&kinds[member.kind]);
      share_here.push_back(share[member.kind]);
    }
    const std::vector<int> counts =
        whole > cache_bytes ? counts_for(here, share_here, cache_bytes) : std::move(share_here);
    for (std::size_t i = 0; i < group.members.size(); ++i) group.members[i].layers = spread(*here[i], counts[i]);
  }
  return groups;
}

}  // namespace lockstep
