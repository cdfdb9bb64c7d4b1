// SPDX-License-Identifier: Apache-2.0
//
// The stages of one worker at work, and what passes between them without a message. One thread.
#pragma once

#include <map>
#include <vector>

#include "runtime/engine/director.hpp"
#include "runtime/engine/stage.hpp"

namespace lockstep {

class Stages {
 public:
  /// References outlive it. `ids`: at least one, of one replica. `pool`: in whose scope the worker works. `feeder`:
  /// reads the data, for who has the replica's first stage.
  Stages(const ModelGraph& graph, const Partition& partition, const std::vector<StageId>& ids, const Losses& losses,
         const StageOptions& options, Weights& weights, const MemoryPool& pool, Feeder* feeder);

  /// A program run begins. Both outlive it.
  void begin(const StepHeader& header, RowRun& run);

  void put_values(const FlowContents& flow, int micro_batch, Tensors values);
  void put_gradients(const FlowContents& flow, int micro_batch, Tensors gradients);

  /// Computes, and hands on what other stages here read. `recompute`: see Stage::forward.
  void compute(const Action& action, bool recompute);
  Tensors values_of(const FlowContents& flow, int micro_batch) const;
  Tensors gradients_of(const FlowContents& flow, int micro_batch) const;
  /// What the last compute made for others has been taken: it is let go of. (The next compute does the same.)
  void release_sent();

  /// What the layers of a stage have collected of its micro-batches, for the other replicas' end_step().
  Tensors statistics(StageId stage);
  void put_statistics(StageId stage, const Tensors& statistics);
  /// With servers, in place of end_step(): the same, which are forgotten here.
  Tensors take_statistics(StageId stage);
  /// The end of a training step: brings buffers up to date.
  void end_step();

 private:
  struct AtWork {
    Stage stage;
    std::vector<const FlowContents*> flows_from, flows_to;  // those whose other end is here too
  };
  /// The flow messages of the last compute may still have to be sent: kept until the next one begins.
  struct Sent {
    StageId stage;
    int micro_batch = -1;
    Op op = Op::forward;
    std::int64_t bytes_before = 0;  // kept when the compute began
  };

  void load_data(int micro_batch);
  AtWork& at(StageId id) { return stages_.at(id); }
  StageMeter& meter(StageId id) { return run_->stage(id, at(id).stage.layers()).meter; }
  void deliver(const Action& action);
  std::int64_t kept_bytes() const;

  const ModelGraph& graph_;
  const Weights& weights_;
  const MemoryPool& pool_;
  Feeder* feeder_;  // null without first_
  StageId first_;   // of the replica
  std::map<StageId, AtWork> stages_;
  std::int64_t resident_bytes_ = 0;  // alive when the run began: parameters, optimizer state, row 0's batch
  Sent sent_;
  RowRun* run_ = nullptr;
};

}  // namespace lockstep
