// SPDX-License-Identifier: Apache-2.0
//
// What the rows of a job say of one program run, or of one step with servers, merged into its result.
#pragma once

#include <string>
#include <vector>

#include "runtime/graph/model_graph.hpp"
#include "runtime/layer/metric.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// That of a run which begins.
StepResult result_of(const StepHeader& header);

class Results {
 public:
  /// `metrics`: of evaluations; they outlive it.
  explicit Results(const Metrics& metrics) : metrics_(metrics) {}

  /// Results are completed in the order of their runs.
  void complete(StepResult& result, std::vector<RowResult> rows);

 private:
  void add_metrics(StepResult& result, std::vector<MetricState> states);

  const Metrics& metrics_;
  std::vector<std::vector<std::vector<double>>> metric_states_;  // by head and metric, of the evaluation so far
};

/// The 2-norm of these gradients.
double norm_of(const NormParts& parts);

/// Names the first of these gradients that is not finite, at the last micro-batch of its layer.
void find_non_finite(RowResult& result, const ModelGraph& graph, int micro_batches);

/// Bytes at the most that were held at once, in all and by kind.
void set_peaks(WorkerReport& report, const MemoryByKind& peak);

/// Of the same row, in another part of the same step.
void add_to(WorkerReport& report, const WorkerReport& further);

}  // namespace lockstep
