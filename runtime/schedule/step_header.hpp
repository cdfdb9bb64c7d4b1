// SPDX-License-Identifier: Apache-2.0
//
// The control plane: one StepHeader per program run, decided by row 0 and travelling ahead of the activations, and what
// comes back. But for the norm, where gradients are clipped, nothing else is broadcast while a job runs.
//
// Results are late by design, so that nothing drains: the results of run k reach row 0 at the end of run k+1 and every
// other worker with the header of run k+2. What results decide (stop on NaN, signals) acts after run k+1, in every job.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/step_result.hpp"

namespace lockstep {

/// replan: at a checkpoint, to go on from it with other cuts. no_progress: train.early_stopping.
enum class StopReason : std::uint8_t { none, finished, not_finite, signal, stop_after, replan, no_progress };

constexpr const char* to_string(StopReason reason) {
  switch (reason) {
    case StopReason::none: return "none";
    case StopReason::finished: return "finished";
    case StopReason::not_finite: return "not_finite";
    case StopReason::signal: return "signal";
    case StopReason::stop_after: return "stop_after";
    case StopReason::replan: return "replan";
    case StopReason::no_progress: return "no_progress";
  }
  return nullptr;
}

struct StepHeader {
  std::int64_t sequence = 0;  ///< counts program runs from 0
  Mode mode = Mode::train;
  std::int64_t step = 0;
  std::int64_t position = 0;         ///< of the batch's first sample: samples consumed before (train), index (evaluate)
  std::vector<std::int64_t> slices;  ///< rows of each micro-batch; its length is the number of micro-batches
  std::vector<HeadLoss> heads;       ///< denominators and weights; the sums are 0 here
  double learning_rate = 0;
  bool last_of_evaluation = false;  ///< as in StepResult, and so is the next
  int set = 0;
  int share = -1;      ///< with servers: whose micro-batches, of all replicas; -1: all
  bool norms = false;  ///< StepResult::norms are wanted (train)
  bool save = false;   ///< a checkpoint of the state after `step`, when this program is done (train, flush)
  StopReason stop = StopReason::none;  ///< with Mode::stop
  std::vector<StepResult> finished;    ///< results that everybody now learns
  double idle_us = 0;                  ///< how long the decider had nothing to do before: nobody's time

  std::string to_bytes() const;
  static StepHeader from_bytes(const std::string& bytes);  ///< throws InternalError on anything else
};

/// The design's rule: the first (rows mod m) slices are one row larger; a short batch fills the sizes of the full batch
/// until its rows end, so it may have fewer slices. `batch`: rows of a full batch, `rows` <= batch.
std::vector<std::int64_t> slice_rows(std::int64_t batch, int micro_batches, std::int64_t rows);

}  // namespace lockstep
