// SPDX-License-Identifier: Apache-2.0
//
// Notices a worker that is persistently slower than it should be: a throttled CPU, a neighbour on its core, a plan that
// believed in other costs. Torch-free.
//
// Each worker's compute time of a step is held against what was expected of it: the plan's prediction, or else the
// fastest that it has been. What all workers are slower by is divided out: only the slow one among them is of interest.
//
// A step says nothing on a shared machine, and a median of steps little: a spell of other work moves it. So a worker is
// slow in a window when it is in nearly every step of it, against the others in the same step and by an amount that the
// clock can tell, and windows in a row must agree. A window has a number of steps and a length in time: thousands of
// steps of a millisecond lie in one spell. Where workers share cores nothing can be told: do not ask.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
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
  static constexpr int kWindow = 10;         ///< steps, at least
  static constexpr double kWindowUs = 2e6;   ///< of steps, at least
  static constexpr int kWindows = 5;         ///< in a row, before anything is said
  static constexpr double kSlow = 1.2;       ///< factor from which a worker is slow
  static constexpr double kLeastUs = 1000;   ///< and by so much in a step
  static constexpr double kNearlyAll = 0.8;  ///< share of a window's steps
  static constexpr double kRecovered = 1.1;  ///< factor up to which a worker that was slow no longer is
  static constexpr std::int64_t kWarm = 2;   ///< first steps that are left out

  /// `planned_us`: by row, the compute time (F, I, W) of one step. Empty: the fastest window so far.
  explicit SpeedWatch(std::vector<double> planned_us = {})
      : planned_(!planned_us.empty()), expected_us_(std::move(planned_us)) {}

  /// The slowest worker, when it has just become certain; then again only after it has been as fast as the others, or
  /// when it has become slower by kSlow once more. Evaluations and short batches are passed over.
  std::optional<SlowWorker> add(const StepResult& result);

  /// Whether some worker was slow in the latest window.
  bool suspects() const;
  /// By row, of the latest window: measured over expected, over the median of that. Empty before the first.
  const std::vector<double>& factors() const { return factors_; }

 private:
  std::optional<SlowWorker> judge();
  std::vector<double> medians() const;
  std::vector<double> factors_of(const std::vector<double>& measured_us, double& usual) const;
  std::vector<bool> slow_rows() const;

  bool planned_;
  std::vector<double> expected_us_;          ///< by row
  std::vector<std::vector<double>> window_;  ///< by step, by row: compute time in us
  double window_us_ = 0;
  std::vector<double> factors_;
  std::vector<std::int64_t> slow_since_;  ///< by row: the first step of slow windows up to now
  std::vector<int> slow_windows_;         ///< by row: in a row, up to now
  std::vector<double> said_;              ///< by row: the factor that was told; 1: nothing
  std::int64_t first_step_ = 0;           ///< of the window
  int micro_batches_ = 0;
};

}  // namespace lockstep
