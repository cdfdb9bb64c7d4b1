// SPDX-License-Identifier: Apache-2.0
//
// The parameters of the stages of one memory: values, gradients, optimizer state, buffers. All that happens to them at
// the end of a step is here; when it does is the worker's business. Used by one thread, whose tensors it makes come
// from `pool`, under the kind that they are.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "runtime/device/stream.hpp"
#include "runtime/engine/bucket_sums.hpp"
#include "runtime/engine/keeper.hpp"
#include "runtime/engine/memory.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/engine/updater.hpp"
#include "runtime/graph/partition.hpp"
#include "runtime/layer/context.hpp"

namespace lockstep {

/// As the layers of one stage hold them: [layer - first layer][position].
struct StageWeights {
  std::vector<std::vector<Parameter>> parameters;
  std::vector<std::vector<Buffer>> buffers;
  GroupAtWork at_work;
};

/// What replicas whose workers share a memory have once: values and optimizer state. One of them makes them.
struct CommonWeights {
  std::map<int, at::Tensor> values;  ///< by index in the model
  std::shared_ptr<ParameterUpdater> updater;
  StreamEvent ready = {};  ///< they have been made
};

/// Whether initial values are drawn for a parameter. Empty: for all.
using DrawnParameters = std::function<bool(const std::string& name)>;
/// For none.
inline bool draws_nothing(const std::string&) {
  return false;
}

struct WeightOptions {
  std::uint64_t seed = 1;
  at::Device device = at::kCPU;
  DrawnParameters draws = {};             ///< the others' values come from somewhere else, undefined until then
  MakeUpdater make_updater = {};          ///< empty: nothing is updated
  const Wiring* wiring = nullptr;         ///< of all replicas; null: there is one
  const CommonWeights* common = nullptr;  ///< another worker has made them; null: they are made here
  /// Values, optimizer state and sums of gradients are in main memory, and layers compute with copies on `device`.
  bool central = false;
  /// Values come from servers, before each use, and nothing is updated.
  bool served = false;
  at::Device storage() const { return central ? at::Device(at::kCPU) : device; }
};

/// Where they are handed over, to several threads.
class CommonPlace {
 public:
  void put(CommonWeights weights);
  /// Waits for them. Throws JobStopped.
  const CommonWeights& wait(const StopFlag& stop);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<CommonWeights> weights_;
};

class Weights {
 public:
  /// Allocates the stages' parameters, a shared one once, and draws the initial values. References outlive it. Throws
  /// LayerError, MemoryLimitError.
  Weights(const ModelGraph& graph, const Partition& partition, const std::vector<StageId>& stages,
          const WeightOptions& options, MemoryPool& pool);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  StageWeights& of(StageId stage) { return by_stage_.at(stage); }
  /// For the others of this memory, which may use them until this is gone. Now all of it is there.
  CommonWeights common();
  /// One per stored tensor, in model order.
  const std::vector<Parameter*>& parameters() const { return owned_; }
  /// Those of them that are trained.
  const std::vector<Parameter*>& trained() const { return trained_; }
  /// Of trained(), by position: the elements whose gradients are summed here.
  const std::vector<Slice>& summed() const { return summed_; }
  std::vector<const Buffer*> buffers() const;

  // ---- sums over groups of micro-batches and replicas ----

  /// By item of Topology::buckets, of those whose stage is here.
  BucketSums& bucket(int item) { return buckets_.at(item); }

  // ---- gradients of the shared parameters, by item of Topology::shared ----

  /// The buffers of the holders here, in holder order.
  Tensors shared_gradients(int item) const;
  /// Another memory's, of one holder; never written to.
  void put_shared_gradient(int item, int holder, at::Tensor gradient);
  /// Adds the buffers of all holders in holder order; the sum becomes the gradient of the first holder here.
  void sum_shared(int item);

  // ---- norm and update ----

  /// Squared norms of the gradients of those whose first holder is here: of the share that is summed here. Throws
  /// ModelError when a trained one has none.
  SquaredNorms squared_norms() const;
  /// The optimizer step `step` (from 1) with gradients times `coefficient`, if that is below 1 (or not a number).
  /// Double [], of the host or where the weights are, which then nobody waits for; undefined: 1.
  void update(double learning_rate, std::int64_t step, const at::Tensor& coefficient = {});
  /// update() that amend() can take back.
  void update_for_now(double learning_rate, std::int64_t step);
  /// Makes of the last update_for_now() what update() would have done with this coefficient, which it waits for.
  void amend(double learning_rate, std::int64_t step, const at::Tensor& coefficient);
  void forget_gradients();
  std::int64_t gradient_bytes() const;
  /// The values as they are now, to where layers compute with them. With central storage: when all who update them are
  /// done.
  void fetch_values();

  /// All that a checkpoint has of them: the live tensors.
  WorkerState state();

 private:
  void make(StageId stage, std::map<int, at::Tensor>& stored, std::map<int, at::Tensor>& copies);
  Parameter& keep(Parameter& held, const at::Tensor& stored);
  void find_shared_holders();
  int tie_of(int item) const { return item % static_cast<int>(shared_holders_.size()); }
  at::Tensor shared_elements(int tie, const Parameter& holder) const;
  const Parameter* holder_of(const Bucket& bucket) const;
  void find_buckets();
  void find_parts();
  std::vector<Parameter*> optimized_parameters();
  std::vector<UpdatePart> parts() const;
  std::vector<at::Tensor> updated_tensors();

  const ModelGraph& graph_;
  const Partition& partition_;
  WeightOptions options_;
  MemoryPool& pool_;
  std::map<StageId, StageWeights> by_stage_;
  std::deque<Parameter> stored_;                 // with central storage: one for each that a layer holds
  std::map<const Parameter*, Parameter*> kept_;  // by what a layer holds: itself, or its one in stored_
  std::vector<Parameter*> all_;                  // every parameter of every layer here, and those of stored_
  std::vector<Parameter*> owned_;                // one per stored tensor: the first holder here
  std::set<const Parameter*> first_holders_;     // of owned_: first in the whole model
  std::vector<Parameter*> trained_;              // the trainable ones of owned_: what the optimizer updates
  int replica_;                                  // of all stages here
  std::map<int, BucketSums> buckets_;            // by item of Topology::buckets; empty where nothing is reduced
  // Of trained_, by position there.
  std::vector<Slice> summed_;     // the elements whose gradients are summed here
  std::vector<Slice> updated_;    // those that are updated here
  std::vector<Slice> optimized_;  // those that the updater of this memory has: its parameters, in order
  std::deque<Parameter> parts_;   // those of them that are parts of one, as the updater sees them
  std::shared_ptr<ParameterUpdater> updater_;
  std::vector<at::Tensor> snapshot_;  // of update_for_now(): weights and optimizer state before it
  std::map<int, int> bucket_of_tie_;  // one of its holders here
  // By item of Topology::shared, of one replica.
  std::vector<std::vector<Parameter*>> shared_holders_;     // per holder; null: in another memory
  std::vector<std::map<int, at::Tensor>> shared_received_;  // holder -> gradient buffer
};

/// The initial value of a buffer.
at::Tensor initial_value(const BufferInfo& buffer, at::Device device);

/// As it begins with these options, drawn or not. Throws LayerError, MemoryLimitError.
at::Tensor new_parameter(const ParameterInfo& parameter, const WeightOptions& options);

/// Draws the initial value of a parameter from the stream (seed, name). Float32.
at::Tensor initial_value(const ParameterInfo& parameter, std::uint64_t seed, at::Device device);

}  // namespace lockstep
