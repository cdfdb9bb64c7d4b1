// SPDX-License-Identifier: Apache-2.0
//
// Copies of the pipeline that train one model on one mini-batch. Each has a run of its micro-batches, and its own
// stages: stage s of replica r is stage r * (stages of one) + s. docs/numerics.md has the order in which gradients are
// added; it knows groups of micro-batches, and no replicas.
#pragma once

#include "runtime/base/tree_sum.hpp"

namespace lockstep {

struct Replicas {
  int count = 1;          ///< R
  int groups = 1;         ///< G, train.gradient_groups: R <= G <= M, 1 where micro_batches is not known
  int micro_batches = 1;  ///< M: of a full mini-batch, over all replicas
  /// Each part of the weights is updated in one memory alone, which has the optimizer's state of it. (Rajbhandari et
  /// al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020: stage 1.)
  bool shard_optimizer = false;
  bool whole_parameters = false;  ///< the optimizer's rule looks at a parameter as a whole: none is divided

  /// A group has consecutive micro-batches, numbered over all replicas; those of a short batch are the first ones of a
  /// full one.
  int group_of(int micro_batch) const;
  /// A replica has whole groups, which follow one another. The last one's have no end: whatever subtree of groups
  /// begins there has nothing of another replica.
  TermRange groups_of(int replica) const;
  int replica_of(int micro_batch) const;
  /// So many sums of its groups a replica cannot add up without others'.
  int sums_of(int replica) const;
  /// While it adds up its groups: so many sums of gradients are there at once, at most.
  int most_sums_of(int replica) const;
  /// Of a mini-batch of `of` micro-batches: what it has of them, perhaps none.
  TermRange micro_batches_of(int replica, int of) const;

  /// Of a full mini-batch: what the replica with most has.
  int most_micro_batches() const;

  bool operator==(const Replicas&) const = default;
};

}  // namespace lockstep
