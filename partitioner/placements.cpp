// SPDX-License-Identifier: Apache-2.0
#include "partitioner/placements.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

namespace lockstep {

std::vector<double> fingerprint(const std::vector<PlannedWorker>& workers, const std::vector<int>& placement) {
  // Ranks, hosts and devices by the order in which they come: their numbers mean nothing. Kinds are what they are.
  std::map<int, std::size_t> ranks, hosts;
  std::map<std::pair<int, std::string>, std::size_t> devices;
  const auto kind_of = [&](const PlannedWorker& worker) {
    const auto first = std::find_if(workers.begin(), workers.end(),
                                    [&](const PlannedWorker& other) { return other.kind == worker.kind; });
    return static_cast<double>(first - workers.begin());
  };
  std::vector<double> print;
  for (const int index : placement) {
    const PlannedWorker& worker = workers[static_cast<std::size_t>(index)];
    const WorkerPlace& place = worker.place;
    print.push_back(kind_of(worker));
    print.push_back(place.is_on_host() ? 0 : 1);
    print.push_back(worker.speed);
    print.push_back(worker.limit_bytes);
    print.push_back(static_cast<double>(ranks.emplace(place.rank, ranks.size()).first->second));
    print.push_back(static_cast<double>(hosts.emplace(place.host, hosts.size()).first->second));
    print.push_back(
        static_cast<double>(devices.emplace(std::pair(place.rank, place.device), devices.size()).first->second));
  }
  return print;
}

namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// Whoever is left when one worker after the other goes, each time the last one of the fullest rank: ranks stay as even
/// as a run makes them.
std::vector<int> from_full_ranks(const std::vector<PlannedWorker>& workers, std::size_t rows) {
  std::map<int, std::vector<int>> by_rank;
  for (std::size_t i = 0; i < workers.size(); ++i) by_rank[workers[i].place.rank].push_back(static_cast<int>(i));
  for (std::size_t left = workers.size(); left > rows; --left) {
    auto fullest = by_rank.begin();
    for (auto rank = by_rank.begin(); rank != by_rank.end(); ++rank)
      if (rank->second.size() >= fullest->second.size()) fullest = rank;
    fullest->second.pop_back();
  }
  std::vector<int> kept;
  for (const auto& [rank, list] : by_rank) kept.insert(kept.end(), list.begin(), list.end());
  std::sort(kept.begin(), kept.end());
  return kept;
}

/// Which workers to take, ascending.
std::vector<std::vector<int>> choices_of(const std::vector<PlannedWorker>& workers, std::size_t rows) {
  std::vector<std::vector<int>> choices = {from_full_ranks(workers, rows)};
  const auto add_first = [&](const auto& before) {
    std::vector<int> order(workers.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return before(workers[at(a)], workers[at(b)]); });
    order.resize(rows);
    std::sort(order.begin(), order.end());
    choices.push_back(order);
  };
  add_first([](const PlannedWorker& a, const PlannedWorker& b) { return a.speed > b.speed; });
  add_first([](const PlannedWorker& a, const PlannedWorker& b) { return a.limit_bytes > b.limit_bytes; });
  return choices;
}

/// Equal but for ranks or devices of their own: no order differs from another.
bool all_alike(const std::vector<PlannedWorker>& workers) {
  bool alike = true;
  std::set<int> ranks, hosts;
  std::set<std::string> devices;
  const PlannedWorker& first = workers.front();
  for (const PlannedWorker& worker : workers) {
    alike = alike && worker.kind == first.kind && worker.speed == first.speed &&
            worker.limit_bytes == first.limit_bytes && worker.place.is_on_host() == first.place.is_on_host();
    ranks.insert(worker.place.rank);
    hosts.insert(worker.place.host);
    devices.insert(worker.place.device);
  }
  if (ranks.size() == 1) alike = alike && (devices.size() == 1 || devices.size() == workers.size());
  return alike && (ranks.size() == 1 || (ranks.size() == workers.size() && hosts.size() == 1));
}

}  // namespace

Placements placements_of(const std::vector<PlannedWorker>& workers, int rows) {
  Placements result;
  std::set<std::vector<double>> seen;
  const auto add = [&](const std::vector<int>& placement) {
    if (seen.insert(fingerprint(workers, placement)).second) result.list.push_back(placement);
  };
  if (static_cast<int>(workers.size()) <= kMostPermutedWorkers) {
    std::vector<int> order(workers.size());
    std::iota(order.begin(), order.end(), 0);
    do add({order.begin(), order.begin() + rows});
    while (std::next_permutation(order.begin(), order.end()));
    return result;
  }
  for (const std::vector<int>& chosen : choices_of(workers, at(rows))) {
    add(chosen);
    const auto add_sorted = [&](const auto& before) {
      std::vector<int> order = chosen;
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return before(workers[at(a)], workers[at(b)]); });
      add(order);
    };
    add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.limit_bytes > b.limit_bytes; });
    add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.limit_bytes < b.limit_bytes; });
    add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.speed > b.speed; });
    add_sorted([](const PlannedWorker& a, const PlannedWorker& b) { return a.speed < b.speed; });
    add_sorted([](const PlannedWorker& a, const PlannedWorker& b) {
      return std::pair(a.place.host, a.place.rank) < std::pair(b.place.host, b.place.rank);
    });
  }
  result.all = all_alike(workers);
  return result;
}

}  // namespace lockstep
