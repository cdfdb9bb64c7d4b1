// SPDX-License-Identifier: Apache-2.0
//
// The data of a job, batch by batch: which samples, read and checked once, cut into micro-batches.
#pragma once

#include <optional>

#include "runtime/engine/director.hpp"
#include "runtime/training/assembly.hpp"
#include "runtime/training/data_checks.hpp"

namespace lockstep {

class BatchReader : public Feeder {
 public:
  /// The assembly outlives it. `replica`: reads what this one computes, and opens nothing; none: whole batches.
  explicit BatchReader(const Assembly& assembly, std::optional<int> replica = {});

  /// Position, slices and the losses' denominators of `header`, for the batch that begins at `position`: of training in
  /// the order of its epochs, of an evaluation as the samples lie; at the end fewer than `batch`. It is read.
  void open(StepHeader& header, std::int64_t position, std::int64_t batch);

  void begin(const StepHeader& header) override;
  Tensors micro_batch(int micro_batch) override;

 private:
  const Dataset& dataset(Mode mode) const;
  void read(const StepHeader& header);

  const Assembly& assembly_;
  TargetChecks targets_;
  Sampler sampler_;
  Mode mode_ = Mode::stop;  // of what is there; stop: nothing
  std::optional<int> replica_;
  std::int64_t position_ = 0, rows_ = 0;
  Tensors batch_;
  std::vector<std::int64_t> slices_;
  int first_slice_ = 0;  // of batch_
};

/// The results of an evaluation's batches, added up.
class EvaluationSum {
 public:
  /// The loss over all batches, with the last of them; then it begins again.
  std::optional<double> add(const StepResult& batch);

 private:
  StepResult sum_;
};

/// One evaluation, batch by batch.
class EvaluationPass {
 public:
  /// Both outlive it.
  EvaluationPass(const Assembly& assembly, BatchReader& reader) : assembly_(assembly), reader_(reader) {}
  /// The next batch of the evaluation after `step`. After the last one (last_of_evaluation) it begins again.
  StepHeader next(std::int64_t step);

 private:
  const Assembly& assembly_;
  BatchReader& reader_;
  std::int64_t position_ = 0, batches_ = 0;
};

}  // namespace lockstep
