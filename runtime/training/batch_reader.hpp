// SPDX-License-Identifier: Apache-2.0
//
// The data of a job, batch by batch: which samples, read and checked once, cut into micro-batches. What does not lie in
// memory is read ahead (read_ahead.hpp).
#pragma once

#include <mutex>
#include <optional>

#include "runtime/engine/director.hpp"
#include "runtime/training/assembly.hpp"
#include "runtime/training/data_checks.hpp"
#include "runtime/training/read_ahead.hpp"

namespace lockstep {

class BatchReader : public Feeder {
 public:
  /// The assembly outlives it. `replica`: reads what this one computes, and opens nothing; none: whole batches. With
  /// servers any replica is at first one without a share: what it reads is what begin() is told (StepHeader::share).
  explicit BatchReader(const Assembly& assembly, std::optional<int> replica = {});

  /// Position, slices and the losses' denominators of `header`, for the batch that begins at `position`: of training in
  /// the order of its epochs, of an evaluation as the samples of its set lie; at the end fewer than a full batch; of
  /// answers the last sample again, until a micro-batch is whole. It is read.
  void open(StepHeader& header, std::int64_t position);

  void begin(const StepHeader& header) override;
  Tensors micro_batch(int micro_batch) override;
  std::vector<double> denominators() override;
  double take_waited_us() override { return std::exchange(waited_us_, 0.0); }

 private:
  const Dataset& dataset(const BatchKey& key) const;
  std::int64_t full_batch(Mode mode) const;
  std::vector<std::int64_t> slices_of(const BatchKey& key) const;
  BatchKey key_of(Mode mode, int set, std::int64_t position) const;
  std::optional<BatchKey> after(const BatchKey& key) const;
  TermRange mine(const std::vector<std::int64_t>& slices) const;
  Tensors read(const BatchKey& key);
  bool reads_ahead(const BatchKey& key) const;
  void take(const BatchKey& key);

  const Assembly& assembly_;
  TargetChecks targets_;
  std::mutex sampling_;
  Sampler sampler_;
  const std::int64_t epoch_;  // samples drawn in one
  std::int64_t last_;         // what begins there is not trained any more
  std::optional<int> replica_;
  const bool takes_shares_;       // of several replicas
  std::optional<BatchKey> here_;  // of what is there
  Tensors batch_;
  std::vector<std::int64_t> slices_;
  int first_slice_ = 0;  // of batch_
  double waited_us_ = 0;
  std::optional<ReadAhead> ahead_;  // its threads use all of the above
};

/// The results of an evaluation's batches, added up.
class EvaluationSum {
 public:
  /// That of all batches of a set, with the last of them; then it begins again. Of the first set alone, which is the
  /// one that counts.
  std::optional<StepResult> add(const StepResult& batch);

 private:
  StepResult sum_;
};

/// One evaluation of all sets, batch by batch.
class EvaluationPass {
 public:
  /// Both outlive it.
  EvaluationPass(const Assembly& assembly, BatchReader& reader) : assembly_(assembly), reader_(reader) {}
  /// The next batch of the evaluation after `step`. After the last one (ended()) it begins again.
  StepHeader next(std::int64_t step);
  bool ended() const { return set_ == 0 && position_ == 0; }

 private:
  const Assembly& assembly_;
  BatchReader& reader_;
  int set_ = 0;
  std::int64_t position_ = 0, batches_ = 0;
};

}  // namespace lockstep
