// SPDX-License-Identifier: Apache-2.0
//
// Costs from what the workers measured while they ran: the way from StepResults to the simulator.
#pragma once

#include <deque>
#include <vector>

#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// Averages over the training steps that were added. All steps of one job, so of one program and one number of
/// micro-batches: shorter batches are left out.
class CostMeter {
 public:
  static constexpr std::size_t kRecentSteps = 64;

  explicit CostMeter(const Program& program);

  void add(const StepResult& result);
  int steps() const { return steps_; }
  /// Of the program's stages. Messages take neither time nor memory: in process they are handed over by pointer, and
  /// over MPI they are not measured. Needs a step.
  Costs costs() const;
  /// Per layer of the model, in one step of the first replica: StageReport::layer_us; the median of the latest
  /// kRecentSteps. Needs a step.
  std::vector<double> layer_us() const;
  /// Per worker, the most of any step: WorkerReport::in_flight_bytes.
  const std::vector<double>& in_flight_bytes() const { return in_flight_bytes_; }

 private:
  const Program& program_;
  int steps_ = 0;
  std::vector<StageReport> sums_;           ///< times summed over steps, bytes of the latest
  std::vector<int> recomputed_, forwards_;  ///< by stage; the latter in one step
  Costs costs_;
  std::vector<double> in_flight_bytes_;
  std::deque<std::vector<std::vector<double>>> recent_layer_us_;  ///< by step, stage, layer of the stage
};

}  // namespace lockstep
