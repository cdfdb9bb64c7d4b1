// SPDX-License-Identifier: Apache-2.0
//
// Turns results into what people read (log, progress line) and what programs read (metrics, TensorBoard). Called on a
// worker's thread; one per process.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "runtime/base/console.hpp"
#include "runtime/base/log.hpp"
#include "runtime/observe/metrics.hpp"
#include "runtime/observe/observer.hpp"
#include "runtime/observe/progress.hpp"
#include "runtime/observe/tensorboard.hpp"
#include "runtime/schedule/measured.hpp"
#include "runtime/schedule/plan_prediction.hpp"

namespace lockstep {

struct ReporterOptions {
  std::int64_t steps = 0;
  std::int64_t log_every = 1;
  std::string metrics_file;                  ///< empty: none
  std::string tensorboard_folder;            ///< empty: none
  double bytes_of_element = 4;               ///< of a gradient or weight
  std::vector<std::string> sets = {};        ///< names of the evaluation sets; empty: there is one, which needs none
  std::vector<std::string> parameters = {};  ///< their names, in the model's order: for StepResult::norms
  std::int64_t tokens_per_sample = 0;        ///< ModelGraph::tokens_per_sample(); 0: samples are counted
  std::int64_t resume_after = -1;            ///< >= 0: the files are those of a run that goes on after this step
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
  std::int64_t position = 0;  ///< of an evaluation: samples of its set before this batch
  int set = 0;                ///< of an evaluation
};

/// "step 120/200  loss 2.3456  grad 1.234  35.1 ms  912 samples/s  1.23 TFLOP/s (45 %)  bubble 20 %": at most 100
/// columns with numbers of a usual size. `pace`: of this step.
std::string step_line(const StepResult& result, const Pace& pace, std::int64_t steps);

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
  std::optional<ReplicaFigures> replica_figures() const;
  std::optional<ServerFigures> server_figures() const;
  std::string waited_for_data() const;
  void add_planned(Prediction& prediction) const;

  ReporterOptions options_;
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::optional<Progress> progress_;
  const Program* program_ = nullptr;
  std::optional<CostMeter> meter_;
  struct ReplicaTime {
    double wait_us = 0, reduce_us = 0;
  };
  std::vector<ReplicaTime> replica_times_;  // by row: of the steps in meter_
  std::vector<double> step_ms_, bubbles_;   // of the steps in meter_
  ServerFigures servers_;                   // sums over these steps
  std::vector<double> data_us_;             // by row: stood still for data, without the first step
  StepResult evaluation_;                   // sums over the batches of the evaluation that is under way
  std::optional<StepResult> last_;
  std::optional<NotFiniteRun> not_finite_;
  std::vector<double> losses_;
  StopReason stop_ = StopReason::none;
};

}  // namespace lockstep
