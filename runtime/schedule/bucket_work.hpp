// SPDX-License-Identifier: Apache-2.0
//
// How the replicas of a stage share the work on a bucket: which of them adds up which gradients, and which weights it
// updates. Weights are there once per memory; whoever has a part of a memory's rows updates a part of its weights.
#pragma once

#include <utility>
#include <vector>

#include "runtime/schedule/wiring.hpp"

namespace lockstep {

struct Program;

struct BucketWork {
  std::vector<WorkerId> rows;              ///< by replica
  std::vector<std::vector<int>> memories;  ///< replicas that share one, ascending; by their first replica
  std::vector<TermRange> sums;             ///< by replica: the blocks whose gradients it adds up
  std::vector<TermRange> updates;          ///< by replica: those whose weights it updates

  using Rows = std::pair<WorkerId, WorkerId>;
  /// Who sends whom sums that it needs for an update, without Replicas::shard_optimizer.
  std::vector<Rows> sends_of_gradients() const;
  /// Who sends whom weights that are updated nowhere in another memory: with Replicas::shard_optimizer.
  std::vector<Rows> sends_of_weights() const;
  /// Who tells whom, in one memory, that its weights are there.
  std::vector<Rows> sends_of_word() const;
  int replica_of(WorkerId row) const;
};

BucketWork work_on(const Bucket& bucket, const Topology& topology, const Wiring& wiring);

/// Gradients or weights in one message on each edge of reduce or gather; 0 on the others.
std::vector<double> elements_between_replicas(const Program& program);

}  // namespace lockstep
