// SPDX-License-Identifier: Apache-2.0
//
// All that lowering needs to know of a model that has been cut into stages. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/action.hpp"
#include "runtime/schedule/replicas.hpp"
#include "runtime/schedule/shares.hpp"

namespace lockstep {

/// Values that are produced in stage `from` and read in the later stage `to`, one message per micro-batch. Neighbours
/// and skips (to > from + 1) are the same thing: every flow goes straight from its producer to its reader.
struct Flow {
  StageId from;
  StageId to;
  bool differentiable = true;  ///< whether a gradient message travels back (false for targets, masks, frozen producers)
};

/// Parameters of which several layers hold a copy each: their gradients are added up, and every holder gets the sum.
struct Shared {
  /// How the sum gets to every row that holds a copy.
  enum class Algorithm : std::uint8_t {
    all_to_all,  ///< every row gets the gradients of all others and adds them up itself
  };
  /// The stage of each holding layer, in layer order, which is the order of the sum (may repeat).
  std::vector<StageId> holders;
  std::vector<int> parameters = {};  ///< in the model's order: one (a tie), or a bucket; empty: nobody needs to know
  Algorithm algorithm = Algorithm::all_to_all;
};

/// Gradients of one stage that its replicas add up together, as soon as each has its own: those of all its trainable
/// parameters but ties, or one holder of a tie, whose holders are all divided alike.
struct Bucket {
  StageId stage;                     ///< of replica 0
  std::vector<int> parameters = {};  ///< in the model's order; empty: nobody needs to know
  Blocks blocks = {};
  int shared = -1;  ///< of a tie: its position in Topology::shared, where replica 0's come first
  int holder = -1;  ///< of a tie: position in Shared::holders
};

struct Topology {
  int stages = 0;                     ///< of all replicas
  std::vector<Flow> flows;            ///< sorted by (from, to), unique
  std::vector<Shared> shared;         ///< trainable parameters only
  std::vector<bool> has_backward;     ///< per stage: a trainable layer in it or in a differentiable producer of it
  std::vector<bool> has_weight_grad;  ///< per stage: a trainable layer in it
  std::vector<bool> has_statistics;   ///< per stage: its layers collect something that all replicas need
  std::vector<Bucket> buckets;        ///< by stage of replica 0; then those of ties
  Replicas replicas;
  int servers = 0;  ///< of weights: so many rows behind those of the stages (parameter_server)

  int stages_of_replica() const { return stages / replicas.count; }
  int replica_of(StageId stage) const { return stage.value() / stages_of_replica(); }
  /// The same stage in another replica.
  StageId in_replica(StageId stage, int replica) const {
    return StageId(stage.value() % stages_of_replica() + replica * stages_of_replica());
  }
};

/// "4 stages", "2 replicas of 4 stages".
std::string stages_text(const Topology& topology);

/// So many copies of `one`, which has none yet.
Topology replicated(const Topology& one, const Replicas& replicas);

/// A chain of `stages` stages: flows s -> s+1 (differentiable) and, for stages > 2, targets from 0 to the last (not
/// differentiable; with 2 stages they travel in the flow 0 -> 1); everything trainable; nothing shared. What
/// `lockstep simulate --stages N` uses.
Topology chain_topology(int stages);

/// Whether gradients come back over a flow: it is differentiable, and its producer has a backward.
bool sends_gradient_back(const Topology& topology, const Flow& flow);

/// The graph that required_before() reads: every flow is a producer; one that sends gradients back makes a consumer.
StageGraph stage_graph(const Topology& topology);

}  // namespace lockstep
