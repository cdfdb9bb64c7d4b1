// SPDX-License-Identifier: Apache-2.0
#include "partitioner/layer_groups.hpp"

#include <map>
#include <set>

#include "tests/test.hpp"

using namespace lockstep;

namespace {

/// Kinds of so many layers each, dealt out in turns, as in a model.
std::vector<AlikeLayers> kinds_of(const std::vector<std::pair<int, double>>& counts_and_bytes) {
  std::vector<AlikeLayers> kinds(counts_and_bytes.size());
  int layer = 0;
  for (bool more = true; more;) {
    more = false;
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      kinds[k].bytes = counts_and_bytes[k].second;
      if (static_cast<int>(kinds[k].layers.size()) == counts_and_bytes[k].first) continue;
      kinds[k].layers.push_back(layer++);
      more = true;
    }
  }
  return kinds;
}

double bytes_of(const LayerGroup& group, const std::vector<AlikeLayers>& kinds) {
  double bytes = 0;
  for (const auto& member : group.members)
    bytes += static_cast<double>(member.layers.size()) * kinds[member.kind].bytes;
  return bytes;
}

std::map<int, std::size_t> counts(const LayerGroup& group) {
  std::map<int, std::size_t> counts;
  for (const auto& member : group.members) counts[member.kind] = member.layers.size();
  return counts;
}

}  // namespace

TEST_CASE("a model that caches hold is measured as the share of a worker, together", "[unit][profile]") {
  const auto kinds = kinds_of({{1, 10}, {5, 3}, {8, 2}});
  const auto groups = layer_groups(kinds, 2, 1000);
  REQUIRE(groups.size() == 1);
  CHECK(counts(groups[0]) == std::map<int, std::size_t>{{0, 1}, {1, 3}, {2, 4}});
  CHECK(counts(layer_groups(kinds, 1, 1000)[0]) == std::map<int, std::size_t>{{0, 1}, {1, 5}, {2, 8}});
  for (const auto& member : groups[0].members) {
    const auto& all = kinds[member.kind].layers;
    CHECK(std::set<int>(member.layers.begin(), member.layers.end()).size() == member.layers.size());
    for (const int layer : member.layers) CHECK(std::find(all.begin(), all.end(), layer) != all.end());
  }
}

TEST_CASE("of a larger model each group has what caches hold, and large layers are alone", "[unit][profile]") {
  const auto kinds = kinds_of({{1, 5000}, {48, 400}, {1, 1}, {2, 30}});
  const auto groups = layer_groups(kinds, 4, 1000);
  std::set<int> seen;
  for (const LayerGroup& group : groups) {
    CHECK(bytes_of(group, kinds) >= 1000);
    double once = 0;
    for (const auto& member : group.members) {
      CHECK(seen.insert(member.kind).second);
      once += kinds[member.kind].bytes;
    }
    CHECK((group.members.size() == 1 || once <= 1000));
    // No layer more than it takes.
    for (const auto& member : group.members)
      CHECK((member.layers.size() == 1 || bytes_of(group, kinds) - kinds[member.kind].bytes < 1000 + 400));
  }
  CHECK(seen.size() == kinds.size());
  CHECK(counts(groups.back()) == std::map<int, std::size_t>{{0, 1}});
}

TEST_CASE("tiny layers among giants are measured a bounded number of times", "[unit][profile]") {
  const auto groups = layer_groups(kinds_of({{2, 5000}, {1, 0.001}, {3, 0}}), 1, 1000);
  REQUIRE(groups.size() == 2);
  std::size_t layers = 0;
  for (const auto& member : groups[0].members) layers += member.layers.size();
  CHECK(layers == 256);
}
