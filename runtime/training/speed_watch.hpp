// SPDX-License-Identifier: Apache-2.0
//
// Notices a worker that is persistently slower than it should be: a throttled CPU, a neighbour on its core, a plan that
// believed in other costs. Torch-free.
//
// Each worker's compute time of a step is held against what was expected of it: the plan's prediction, or else its own
// first steps. What all workers are slower by is divided out: only the slow one among them is of interest here. One
// step says nothing on a shared machine, so medians of windows are compared, and several windows in a row must agree.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/schedule/step_header.hpp"

namespace lockstep {

struct SlowWorker {
  int row = -1;
  double factor = 1;            ///< times slower than expected, against the median worker
  std::int64_t since_step = 0;  ///< the first step of the windows that agree
};

class SpeedWatch {
 public:
  static constexpr int kWindow = 10;        ///< steps
  static constexpr int kWindows = 3;        ///< in a row, before anything is said
  static constexpr double kSlow = 1.2;      ///< factor from which a worker is slow
  static constexpr std::int64_t kWarm = 2;  ///< first steps that are left out

  /// `expected_us`: by row, the compute time (F, I, W) of one step. Empty: what the first window shows.
  explicit SpeedWatch(std::vector<double> expected_us = {}) : expected_us_(std::move(expected_us)) {}

  /// The slowest worker, when it has just become certain; then again only after it has been as fast as the others, or
  /// when it has become slower by kSlow once more. Evaluations and short batches are passed over.
  std::optional<SlowWorker> add(const StepResult& result);

  /// Whether some worker was slow in the latest window.
  bool suspects() const;
  /// By row, of the latest window: measured over expected, over the median of that. Empty before the first.
  const std::vector<double>& factors() const { return factors_; }

 private:
  std::optional<SlowWorker> judge();

  std::vector<double> expected_us_;
  std::vector<std::vector<double>> window_us_;  ///< by row
  std::vector<double> factors_;
  std::vector<int> slow_windows_;  ///< by row: in a row, up to now
  std::vector<double> said_;       ///< by row: the factor that was told; 1: nothing
  std::int64_t first_step_ = 0;    ///< of the window
  int micro_batches_ = 0;
};

}  // namespace lockstep
