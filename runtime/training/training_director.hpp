// SPDX-License-Identifier: Apache-2.0
//
// The deciders of training and of a single evaluation.
#pragma once

#include <atomic>
#include <optional>

#include "runtime/base/log.hpp"
#include "runtime/training/batch_reader.hpp"
#include "runtime/training/checkpointing.hpp"

namespace lockstep {

/// What a training run is to do besides what its config says.
struct TrainingOrders {
  std::int64_t last_step = 0;            ///< 0: train.steps
  bool evaluates = true;                 ///< false: whatever train.eval_every says
  std::optional<bool> stop_on_nan = {};  ///< absent: train.stop_on_nan
  /// Raised from outside, in the process of row 0: leave at the next checkpoint (StopReason::replan), to go on from it
  /// with other cuts.
  const std::atomic<bool>* replan = nullptr;
};

class TrainingDirector : public Decider {
 public:
  /// Goes on after `start`. `publisher`: null when nothing is saved. `signalled`: raised from outside: finish the step
  /// and leave; may be null. References outlive the director.
  TrainingDirector(const Assembly& assembly, BatchReader& reader, const TrainerState& start,
                   const TrainingOrders& orders = {}, Publisher* publisher = nullptr,
                   const std::atomic<bool>* signalled = nullptr, Log log = {});
  void take(StepResult& result) override;
  void saved(std::vector<std::string> shards) override;
  StepHeader next(const WaitLimits& limits) override;

 private:
  /// A result, and what had been evaluated when it came.
  struct Told {
    StepResult result;
    PlateauState plateau, stopping;
  };
  void evaluated(const StepResult& evaluation);
  StepHeader train_step();
  double rate_of(std::int64_t step) const;
  bool evaluation_due() const;
  bool save_due() const;
  bool must_stop_after() const;
  bool must_replan() const;
  StepHeader last_header(const WaitLimits& limits);
  void request_save(StepHeader& header);

  const Assembly& assembly_;
  Log log_;
  const Config& config_;
  BatchReader& reader_;
  EvaluationPass evaluation_;
  TrainingOrders orders_;
  Publisher* publisher_;
  const std::atomic<bool>* signalled_;
  const bool stop_on_nan_;
  EvaluationSum evaluated_;
  PlateauState plateau_;            // stays empty where the learning rate follows no evaluation
  std::optional<Watched> watched_;  // of early stopping
  PlateauState stopping_;
  std::vector<Told> untold_;         // results that the publisher has not been told of
  std::int64_t first_step_;          // training goes on after it
  double saved_us_;                  // when the last save was due, or the job began
  std::int64_t step_ = 0;            // the last training step that was started
  std::int64_t position_ = 0;        // samples consumed
  std::int64_t evaluated_step_ = 0;  // the last step after which an evaluation was completely started
  StopReason stop_ = StopReason::none;
  bool flushed_ = false;
};

/// Evaluates once, after `step`, and leaves.
class EvaluationDirector : public Decider {
 public:
  /// `signalled`: raised from outside: leave; may be null.
  EvaluationDirector(const Assembly& assembly, BatchReader& reader, std::int64_t step,
                     const std::atomic<bool>* signalled = nullptr)
      : pass_(assembly, reader), step_(step), signalled_(signalled) {}
  void take(StepResult& result) override;
  StepHeader next(const WaitLimits& limits) override;

 private:
  EvaluationPass pass_;
  std::int64_t step_;
  const std::atomic<bool>* signalled_;
  bool done_ = false, flushed_ = false;
  StopReason stop_ = StopReason::finished;
};

}  // namespace lockstep
