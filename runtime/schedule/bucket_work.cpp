// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/bucket_work.hpp"

#include <algorithm>
#include <map>

namespace lockstep {

BucketWork work_on(const Bucket& bucket, const Topology& topology, const Wiring& wiring) {
  const Replicas& replicas = topology.replicas;
  BucketWork work;
  std::map<int, std::size_t> position;  // of a memory
  for (int replica = 0; replica < replicas.count; ++replica) {
    const WorkerId row = wiring.row_of_stage[index(topology.in_replica(bucket.stage, replica))];
    work.rows.push_back(row);
    const auto [memory, is_new] = position.try_emplace(wiring.memory_of(row), work.memories.size());
    if (is_new) work.memories.emplace_back();
    work.memories[memory->second].push_back(replica);
  }
  work.sums = bucket.blocks.divided(replicas.count, replicas.whole_parameters);
  work.updates = work.sums;
  if (replicas.shard_optimizer || work.memories.size() == 1) return work;
  for (const std::vector<int>& members : work.memories) {
    const std::vector<TermRange> shares =
        bucket.blocks.divided(static_cast<int>(members.size()), replicas.whole_parameters);
    for (std::size_t k = 0; k < members.size(); ++k) work.updates[static_cast<std::size_t>(members[k])] = shares[k];
  }
  return work;
}

std::vector<BucketWork::Rows> BucketWork::sends_of_gradients() const {
  std::vector<Rows> sends;
  for (std::size_t from = 0; from < rows.size(); ++from)
    for (std::size_t to = 0; to < rows.size(); ++to)
      if (const TermRange both = both_of(sums[from], updates[to]); from != to && both.begin < both.end)
        sends.emplace_back(rows[from], rows[to]);
  return sends;
}

std::vector<BucketWork::Rows> BucketWork::sends_of_weights() const {
  std::vector<Rows> sends;
  for (const std::vector<int>& home : memories)
    for (std::size_t k = 0; k < home.size(); ++k)
      for (const std::vector<int>& other : memories)
        if (&other != &home)
          sends.emplace_back(rows[static_cast<std::size_t>(home[k])],
                             rows[static_cast<std::size_t>(other[k % other.size()])]);
  return sends;
}

std::vector<BucketWork::Rows> BucketWork::sends_of_word() const {
  std::vector<Rows> sends;
  for (const std::vector<int>& members : memories)
    for (const int from : members)
      for (const int to : members)
        if (from != to) sends.emplace_back(rows[static_cast<std::size_t>(from)], rows[static_cast<std::size_t>(to)]);
  return sends;
}

int BucketWork::replica_of(WorkerId row) const {
  return static_cast<int>(std::find(rows.begin(), rows.end(), row) - rows.begin());
}

}  // namespace lockstep
