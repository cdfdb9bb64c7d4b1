// SPDX-License-Identifier: Apache-2.0
//
// The training loop's decisions, on the worker of stage 0: which batch, how it is sliced, when to evaluate, when to
// stop.
#pragma once

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/training/checkpointing.hpp"
#include "runtime/training/data_checks.hpp"

namespace lockstep {

class TrainingDirector : public Director {
 public:
  /// References outlive the director. `start`: step and position to go on from. `publisher`: null when nothing is
  /// saved. `replan`, `signalled`: of FitOptions.
  TrainingDirector(const Config& config, const DataSplits& data, const ModelGraph& graph, const Losses& losses,
                   const TrainerState& start = {}, Publisher* publisher = nullptr,
                   const std::atomic<bool>* replan = nullptr, const std::atomic<bool>* signalled = nullptr);
  StepHeader next(const std::vector<StepResult>& finished, const WaitLimits& limits) override;
  void saved(std::vector<std::string> shards) override;
  Tensors micro_batch(int micro_batch) override;

 private:
  StepHeader train_step();
  StepHeader evaluation_step();
  StepHeader load(StepHeader header, const Dataset& dataset, const std::vector<std::int64_t>& samples,
                  std::int64_t batch);
  bool evaluation_due() const;
  bool save_due() const;
  bool must_stop_after() const;
  bool must_replan() const;
  StepHeader last_header(const WaitLimits& limits);
  void request_save(StepHeader& header);

  const Config& config_;
  const DataSplits& data_;
  const ModelGraph& graph_;
  const Losses& losses_;
  TargetChecks targets_;
  Sampler sampler_;
  Publisher* publisher_;
  const std::atomic<bool>*replan_, *signalled_;
  std::int64_t first_step_;          // training goes on after it
  double saved_us_;                  // when the last save was due, or the job began
  std::int64_t step_ = 0;            // the last training step that was started
  std::int64_t position_ = 0;        // samples consumed
  std::int64_t evaluated_step_ = 0;  // the last step after which an evaluation was completely started
  std::int64_t evaluation_position_ = 0, evaluation_steps_ = 0;
  StopReason stop_ = StopReason::none;
  bool flushed_ = false;
  Tensors batch_;  // of the header that was given last
  std::vector<std::int64_t> slices_;
};

}  // namespace lockstep
