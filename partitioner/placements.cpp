// SPDX-License-Identifier: Apache-2.0
#include "partitioner/placements.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

namespace lockstep {

std::vector<double> fingerprint(const std::vector<PlannedWorker>& workers, const std::vector<int>& placement) {
  // Ranks and hosts by the order in which they come: their numbers mean nothing.
  std::map<int, std::size_t> ranks, hosts;
  std::vector<double> print;
  for (const int index : placement) {
    const PlannedWorker& worker = workers[static_cast<std::size_t>(index)];
    print.push_back(worker.speed);
    print.push_back(worker.limit_bytes);
    print.push_back(static_cast<double>(ranks.emplace(worker.place.rank, ranks.size()).first->second));
    print.push_back(static_cast<double>(hosts.emplace(worker.place.host, hosts.size()).first->second));
  }
  return print;
}

Placements placements_of(const std::vector<PlannedWorker>& workers) {
  std::vector<int> order(workers.size());
  std::iota(order.begin(), order.end(), 0);
  Placements result;
  std::set<std::vector<double>> seen;
  const auto add = [&](const std::vector<int>& placement) {
    if (seen.insert(fingerprint(workers, placement)).second) result.list.push_back(placement);
  };
  if (static_cast<int>(workers.size()) <= kMostPermutedWorkers) {
    do add(order);
    while (std::next_permutation(order.begin(), order.end()));
    return result;
  }
  const std::vector<int> in_order = order;
  add(in_order);
  const auto add_sorted = [&](const auto& before) {
    order = in_order;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return before(workers[static_cast<std::size_t>(a)], workers[static_cast<std::size_t>(b)]);
    });
    add(order);
  };
  add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.limit_bytes > b.limit_bytes; });
  add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.limit_bytes < b.limit_bytes; });
  add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.speed > b.speed; });
  add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.speed < b.speed; });
  add_sorted([](const PlannedWorker& a, const PlannedWorker& b) {
    return std::pair(a.place.host, a.place.rank) < std::pair(b.place.host, b.place.rank);
  });
  // Equal but for ranks of their own: no order differs from another.
  bool alike = true;
  std::set<int> ranks, hosts;
  for (const PlannedWorker& worker : workers) {
    alike = alike && worker.speed == workers.front().speed && worker.limit_bytes == workers.front().limit_bytes;
    ranks.insert(worker.place.rank);
    hosts.insert(worker.place.host);
  }
  const bool one_way = ranks.size() == 1 || (ranks.size() == workers.size() && hosts.size() == 1);
  result.all = alike && one_way;
  return result;
}

}  // namespace lockstep
