// SPDX-License-Identifier: Apache-2.0
//
// The control plane: one StepHeader per program run, decided by row 0 and travelling ahead of the activations, and what
// comes back. Nothing else is ever broadcast while a job runs.
//
// Results are late by design, so that nothing drains: the results of run k reach row 0 at the end of run k+1 and every
// other worker with the header of run k+2. What results decide (stop on NaN, signals) acts after run k+1, in every job.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

/// The first value that was not finite: forward first by micro-batch, then by layer.
struct NonFinite {
  int layer = -1;  ///< index in the model; -1: none
  int micro_batch = -1;
  std::string what;  ///< "output", "input gradient", "loss", "gradient of <parameter>"
  bool found() const { return !what.empty(); }
};

/// What one worker did in one program run.
struct WorkerReport {
  int row = -1;
  double compute_us = 0;            ///< in layers, loss and optimizer
  double wait_us = 0;               ///< in receive, send and wait_sends
  double begin_us = 0, end_us = 0;  ///< first and last compute, on the worker's own clock
  std::int64_t peak_bytes = 0;      ///< tensor bytes alive at most, since the job began
};

/// What one program run gave, merged over all workers. The same on every rank.
struct StepResult {
  std::int64_t sequence = -1;  ///< which program run
  Mode mode = Mode::train;
  std::int64_t step = 0;  ///< optimizer step, from 1; of an evaluation: the step after which it ran
  double loss_sum = 0;    ///< sum of the numerators in micro-batch order
  double denominator = 0;
  double gradient_norm = 0;  ///< global 2-norm before clipping; 0 in evaluation
  double learning_rate = 0;
  std::int64_t samples = 0;
  double elapsed_us = 0;  ///< row 0: from this header to the next
  NonFinite non_finite;
  bool signalled = false;             ///< some rank was asked to stop
  bool last_of_evaluation = false;    ///< no further batch belongs to this evaluation
  std::vector<WorkerReport> workers;  ///< by row

  double loss() const { return loss_sum / denominator; }
};

enum class StopReason : std::uint8_t { none, finished, not_finite, signal, stop_after };

struct StepHeader {
  std::int64_t sequence = 0;  ///< counts program runs from 0
  Mode mode = Mode::train;
  std::int64_t step = 0;
  std::vector<std::int64_t> slices;  ///< rows of each micro-batch; its length is the number of micro-batches
  double denominator = 1;            ///< N of the whole mini-batch, over all replicas
  double learning_rate = 0;
  bool last_of_evaluation = false;
  bool save = false;  ///< a checkpoint of the state after `step`, when this program is done (train, flush)
  StopReason stop = StopReason::none;  ///< with Mode::stop
  std::vector<StepResult> finished;    ///< results that everybody now learns

  std::string to_bytes() const;
  static StepHeader from_bytes(const std::string& bytes);  ///< throws InternalError on anything else
};

/// What one row sends to row 0 after a program run; merged into a StepResult there.
struct RowResult {
  WorkerReport report;
  double loss_sum = 0;
  NonFinite non_finite;
  bool signalled = false;
  std::vector<int> parameters;        ///< indices in the model's parameter order
  std::vector<double> squared_norms;  ///< of their gradients
  std::vector<std::string> saved;     ///< what this row has written of checkpoints: StateKeeper::take_reports()

  std::string to_bytes() const;
  static RowResult from_bytes(const std::string& bytes);
};

/// Of two findings the one that came first in the step.
const NonFinite& first_of(const NonFinite& a, const NonFinite& b);

/// The design's rule: the first (rows mod m) slices are one row larger; a short batch fills the sizes of the full batch
/// until its rows end, so it may have fewer slices. `batch`: rows of a full batch, `rows` <= batch.
std::vector<std::int64_t> slice_rows(std::int64_t batch, int micro_batches, std::int64_t rows);

}  // namespace lockstep
