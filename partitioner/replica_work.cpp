// SPDX-License-Identifier: Apache-2.0
#include "partitioner/replica_work.hpp"

#include <algorithm>

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

std::vector<int> memories_of_weights(const std::vector<WorkerPlace>& places, bool central) {
  if (central) return std::vector<int>(places.size(), 0);
  std::vector<int> memories;
  for (std::size_t row = 0; row < places.size(); ++row) {
    const auto first = std::find_if(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(row),
                                    [&](const WorkerPlace& other) { return other.shares_memory_with(places[row]); });
    memories.push_back(static_cast<int>(first - places.begin()));
  }
  return memories;
}

WorkShares work_shares(const Topology& topology, const Wiring& wiring) {
  const Replicas& replicas = topology.replicas;
  const auto rows = static_cast<std::size_t>(wiring.rows);
  const std::vector<double> none(rows);
  WorkShares shares{none, none, none, none, none};
  int terms = 0;
  for (int replica = 0; replica < replicas.count; ++replica) terms += replicas.sums_of(replica);
  for (const Bucket& bucket : topology.buckets) {
    const BucketWork work = work_on(bucket, topology, wiring);
    const auto all = static_cast<double>(bucket.blocks.elements());
    for (const std::vector<int>& members : work.memories) {
      double in_memory = 0;
      for (const int replica : members)
        in_memory += static_cast<double>(bucket.blocks.stored(work.updates[at(replica)]));
      for (const int replica : members) {
        const std::size_t row = at(work.rows[at(replica)].value());
        const TermRange groups = replicas.groups_of(replica);
        const int of_own = std::min(groups.end, replicas.groups) - groups.begin - replicas.sums_of(replica);
        shares.elements[row] += all;
        shares.updated[row] += static_cast<double>(bucket.blocks.elements(work.updates[at(replica)]));
        shares.stored[row] += static_cast<double>(bucket.blocks.stored({0, bucket.blocks.count()}));
        shares.stored_in_memory[row] += in_memory;
        shares.added[row] +=
            all * of_own + static_cast<double>(bucket.blocks.elements(work.sums[at(replica)])) * (terms - 1);
      }
    }
  }
  return shares;
}

double share_of(double part, double all) {
  return all > 0 ? part / all : 1.0;
}

}  // namespace lockstep
