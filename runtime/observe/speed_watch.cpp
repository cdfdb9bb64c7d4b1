// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/speed_watch.hpp"

#include <algorithm>

#include "runtime/base/median.hpp"

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
  if (window_.empty()) first_step_ = result.step;
  std::vector<double>& step = window_.emplace_back();
  for (const WorkerReport& worker : result.workers) step.push_back(compute_us(worker));
  window_us_ += result.elapsed_us;
  if (window_.size() < kWindow || window_us_ < kWindowUs) return std::nullopt;
  const std::optional<SlowWorker> slow = judge();
  window_.clear();
  window_us_ = 0;
  return slow;
}

bool SpeedWatch::suspects() const {
  return std::any_of(slow_windows_.begin(), slow_windows_.end(), [](int windows) { return windows > 0; });
}

/// By row, over the window.
std::vector<double> SpeedWatch::medians() const {
  std::vector<double> by_row, values;
  for (std::size_t row = 0; row < window_.front().size(); ++row) {
    values.clear();
    for (const std::vector<double>& step : window_) values.push_back(step[row]);
    by_row.push_back(median(values));
  }
  return by_row;
}

/// Measured over expected, over what is usual among the workers.
std::vector<double> SpeedWatch::factors_of(const std::vector<double>& measured_us, double& usual) const {
  std::vector<double> factors;
  for (std::size_t row = 0; row < measured_us.size(); ++row)
    factors.push_back(expected_us_[row] > 0 ? measured_us[row] / expected_us_[row] : 1.0);
  // Of two workers the faster one is the measure: the median of an even number is the lower one.
  std::vector<double> sorted = factors;
  std::sort(sorted.begin(), sorted.end());
  usual = sorted[(sorted.size() - 1) / 2];
  if (!(usual > 0)) usual = 1.0;
  for (double& factor : factors) factor /= usual;
  return factors;
}

/// Slow in nearly every step of the window.
std::vector<bool> SpeedWatch::slow_rows() const {
  std::vector<int> steps(expected_us_.size(), 0);
  for (const std::vector<double>& step : window_) {
    double usual = 1;
    const std::vector<double> factors = factors_of(step, usual);
    for (std::size_t row = 0; row < step.size(); ++row)
      if (factors[row] >= kSlow && step[row] - usual * expected_us_[row] >= kLeastUs) ++steps[row];
  }
  std::vector<bool> slow;
  for (const int count : steps) slow.push_back(count >= kNearlyAll * static_cast<double>(window_.size()));
  return slow;
}

std::optional<SlowWorker> SpeedWatch::judge() {
  const std::vector<double> measured_us = medians();
  if (expected_us_.empty()) expected_us_ = measured_us;
  if (!planned_)  // a first window that was disturbed is no measure for ever
    for (std::size_t row = 0; row < measured_us.size(); ++row)
      expected_us_[row] = std::min(expected_us_[row], measured_us[row]);
  double usual = 1;
  factors_ = factors_of(measured_us, usual);
  const std::vector<bool> slow = slow_rows();

  slow_windows_.resize(factors_.size(), 0);
  slow_since_.resize(factors_.size(), 0);
  said_.resize(factors_.size(), 1.0);
  std::optional<SlowWorker> slowest;
  for (std::size_t row = 0; row < factors_.size(); ++row) {
    if (factors_[row] <= kRecovered) said_[row] = 1.0;
    if (!slow[row]) {
      slow_windows_[row] = 0;
      continue;
    }
    if (++slow_windows_[row] == 1) slow_since_[row] = first_step_;
    if (slow_windows_[row] >= kWindows && factors_[row] >= said_[row] * kSlow &&
        (!slowest || factors_[row] > slowest->factor))
      slowest = SlowWorker{static_cast<int>(row), factors_[row], slow_since_[row]};
  }
  if (slowest) said_[static_cast<std::size_t>(slowest->row)] = slowest->factor;
  return slowest;
}

}  // namespace lockstep
