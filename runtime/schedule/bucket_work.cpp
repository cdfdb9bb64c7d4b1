// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/bucket_work.hpp"

#include <algorithm>
#include <map>

#include "runtime/schedule/program.hpp"

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

namespace {

double elements_of_message(const Program& program, const Bucket& bucket, const BucketWork& work, const Edge& edge) {
  const Replicas& replicas = program.topology.replicas;
  const int sender = work.replica_of(edge.from);
  const auto from = static_cast<std::size_t>(sender), to = static_cast<std::size_t>(work.replica_of(edge.to));
  const TermRange blocks = edge.kind == EdgeKind::reduce ? work.sums[to]
                           : replicas.shard_optimizer    ? work.updates[from]
                                                         : both_of(work.sums[from], work.updates[to]);
  const int sums = edge.kind == EdgeKind::reduce ? replicas.sums_of(sender) : 1;
  return static_cast<double>(bucket.blocks.elements(blocks)) * sums;
}

}  // namespace

std::vector<double> elements_between_replicas(const Program& program) {
  std::vector<double> elements(program.edges.size(), 0.0);
  if (program.topology.replicas.count == 1) return elements;
  std::vector<BucketWork> work;
  for (const Bucket& bucket : program.topology.buckets)
    work.push_back(work_on(bucket, program.topology, program.wiring));
  for (std::size_t e = 0; e < elements.size(); ++e) {
    const Edge& edge = program.edges[e];
    if (edge.kind != EdgeKind::reduce && edge.kind != EdgeKind::gather) continue;
    const auto item = static_cast<std::size_t>(edge.item);
    elements[e] = elements_of_message(program, program.topology.buckets[item], work[item], edge);
  }
  return elements;
}

}  // namespace lockstep
