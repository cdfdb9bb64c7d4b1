// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/speed_watch.hpp"

#include <algorithm>

#include "runtime/schedule/measured.hpp"

namespace lockstep {
namespace {

double compute_us(const WorkerReport& worker) {
  double us = 0;
  for (const StageReport& stage : worker.stages)
    us += stage.forward_us + stage.input_grad_us + stage.weight_grad_us + stage.recompute_us;
  return us;
}

}  // namespace

std::optional<SlowWorker> SpeedWatch::add(const StepResult& result) {
  if (result.mode != Mode::train || result.step <= kWarm) return std::nullopt;
  micro_batches_ = std::max(micro_batches_, result.micro_batches);
  if (result.micro_batches < micro_batches_) return std::nullopt;
  window_us_.resize(result.workers.size());
  if (window_us_.front().empty()) first_step_ = result.step;
  for (std::size_t row = 0; row < result.workers.size(); ++row)
    window_us_[row].push_back(compute_us(result.workers[row]));
  if (window_us_.front().size() < kWindow) return std::nullopt;
  const std::optional<SlowWorker> slow = judge();
  for (std::vector<double>& window : window_us_) window.clear();
  return slow;
}

bool SpeedWatch::suspects() const {
  return std::any_of(slow_windows_.begin(), slow_windows_.end(), [](int windows) { return windows > 0; });
}

std::optional<SlowWorker> SpeedWatch::judge() {
  std::vector<double> measured;
  for (const std::vector<double>& window : window_us_) measured.push_back(median(window));
  if (expected_us_.empty()) expected_us_ = measured;
  factors_.clear();
  for (std::size_t row = 0; row < measured.size(); ++row)
    factors_.push_back(expected_us_[row] > 0 ? measured[row] / expected_us_[row] : 1.0);
  // Of two workers the faster one is the measure: the median of an even number is the lower one.
  std::vector<double> sorted = factors_;
  std::sort(sorted.begin(), sorted.end());
  const double usual = sorted[(sorted.size() - 1) / 2];
  for (double& factor : factors_) factor /= usual > 0 ? usual : 1.0;

  slow_windows_.resize(factors_.size(), 0);
  said_.resize(factors_.size(), 1.0);
  std::optional<SlowWorker> slowest;
  for (std::size_t row = 0; row < factors_.size(); ++row) {
    if (factors_[row] < kSlow) {
      slow_windows_[row] = 0;
      said_[row] = 1.0;
    } else if (++slow_windows_[row] >= kWindows && factors_[row] >= said_[row] * kSlow &&
               (!slowest || factors_[row] > slowest->factor)) {
      slowest = SlowWorker{static_cast<int>(row), factors_[row], first_step_ - (kWindows - 1) * kWindow};
    }
  }
  if (slowest) said_[static_cast<std::size_t>(slowest->row)] = slowest->factor;
  return slowest;
}

}  // namespace lockstep
