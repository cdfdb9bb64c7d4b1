// SPDX-License-Identifier: Apache-2.0
//
// Turns results into what people read (log, progress line) and what programs read (metrics, TensorBoard). Called on a
// worker's thread; one per process.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "partitioner/plan_file.hpp"
#include "runtime/base/console.hpp"
#include "runtime/base/log.hpp"
#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/observe/metrics.hpp"
#include "runtime/observe/progress.hpp"
#include "runtime/observe/tensorboard.hpp"
#include "runtime/schedule/measured.hpp"

namespace lockstep {

struct ReporterOptions {
  std::int64_t steps = 0;
  std::int64_t log_every = 1;
  std::string metrics_file;        ///< empty: none
  std::string tensorboard_folder;  ///< empty: none
  std::int64_t resume_after = -1;  ///< >= 0: the files are those of a run that goes on after this step
  /// Of a full batch: the end compares with its simulation. Asked when training is under way; empty: no comparison.
  std::function<const Program&()> program = {};
  std::optional<PlanPrediction> planned = {};  ///< what the plan said: the end compares with that instead
  std::shared_ptr<Console> console = {};  ///< if it has a terminal: a progress line there, no console line per step
  Log log;
};

/// The first program run with a value that was not finite.
struct NotFiniteRun {
  NonFinite first;
  Mode mode = Mode::train;
  std::int64_t step = 0;      ///< of an evaluation: the step after which it ran
  std::int64_t position = 0;  ///< of an evaluation: its samples before this batch
};

/// What the micro-batch, or where it is known of no single one the batch, was made of: "samples 3, 17 of the training
/// set", or where they stand: "x.csv:5, x.csv:19".
std::string samples_text(const Config& config, const DataSplits& data, const NotFiniteRun& run);

class Reporter : public Observer {
 public:
  explicit Reporter(const ReporterOptions& options);
  void on_result(const StepResult& result) override;
  void on_stop(StopReason reason) override;

  StopReason stop_reason() const { return stop_; }
  const std::optional<StepResult>& last_step() const { return last_; }  ///< the last training step
  const std::optional<NotFiniteRun>& not_finite() const { return not_finite_; }
  const std::vector<double>& losses() const { return losses_; }  ///< of every training step

 private:
  void on_step(const StepResult& result);
  void on_evaluation(const StepResult& batch);
  std::optional<Prediction> prediction() const;
  void add_planned(Prediction& prediction) const;

  ReporterOptions options_;
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::optional<Progress> progress_;
  const Program* program_ = nullptr;
  std::optional<CostMeter> meter_;
  std::vector<double> step_ms_, bubbles_;  // of the steps in meter_
  StepResult evaluation_;                  // sums over the batches of the evaluation that is under way
  std::optional<StepResult> last_;
  std::optional<NotFiniteRun> not_finite_;
  std::vector<double> losses_;
  StopReason stop_ = StopReason::none;
};

}  // namespace lockstep
