// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/reporter.hpp"

#include <unistd.h>

#include <iomanip>
#include <sstream>

namespace lockstep {
namespace {

std::string step_line(const StepResult& result, std::int64_t steps) {
  std::ostringstream out;
  out << "step " << result.step << "/" << steps << std::fixed << std::setprecision(4) << "  loss " << result.loss()
      << std::setprecision(3) << "  grad norm " << result.gradient_norm << std::setprecision(1) << "  "
      << result.elapsed_us * 1e-3 << " ms  bubble " << std::setprecision(0) << measured_bubble(result) * 100 << " %";
  return out.str();
}

}  // namespace

Reporter::Reporter(const ReporterOptions& options) : options_(options) {
  if (!options_.metrics_file.empty()) metrics_.emplace(options_.metrics_file, options_.resume_after);
  if (!options_.tensorboard_folder.empty()) tensorboard_.emplace(options_.tensorboard_folder);
  if (options_.progress && isatty(STDERR_FILENO)) progress_.emplace(options_.steps, STDERR_FILENO);
}

void Reporter::on_result(const StepResult& result) {
  if (result.non_finite.found() && !non_finite_) {
    non_finite_ = result.non_finite;
    non_finite_step_ = result.step;
  }
  if (result.mode == Mode::train)
    on_step(result);
  else
    on_evaluation(result);
}

void Reporter::on_step(const StepResult& result) {
  last_ = result;
  losses_.push_back(result.loss());
  if (metrics_) metrics_->step(result);
  if (tensorboard_) {
    tensorboard_->scalar("train/loss", result.step, result.loss());
    tensorboard_->scalar("train/grad_norm", result.step, result.gradient_norm);
    tensorboard_->scalar("train/learning_rate", result.step, result.learning_rate);
    tensorboard_->scalar("time/step_ms", result.step, result.elapsed_us * 1e-3);
  }
  const bool due = result.step % options_.log_every == 0 || result.step == 1 || result.step == options_.steps;
  const Log log = due && !progress_ ? options_.log : options_.log.quiet();
  log.info(step_line(result, options_.steps));
  if (progress_)
    progress_->update(result.step, result.loss(), result.elapsed_us * 1e-3,
                      static_cast<double>(result.samples) / (result.elapsed_us * 1e-6));
}

void Reporter::on_evaluation(const StepResult& batch) {
  StepResult& sum = evaluation_;
  sum.mode = Mode::evaluate;
  sum.step = batch.step;
  sum.loss_sum += batch.loss_sum;
  sum.denominator += batch.denominator;
  sum.samples += batch.samples;
  sum.elapsed_us += batch.elapsed_us;
  if (!batch.last_of_evaluation) return;
  if (metrics_) metrics_->evaluation(sum);
  if (tensorboard_) tensorboard_->scalar("eval/loss", sum.step, sum.loss());
  if (progress_) progress_->clear();
  std::ostringstream line;
  line << "step " << sum.step << "/" << options_.steps << std::fixed << std::setprecision(4) << "  eval loss "
       << sum.loss() << "  (" << sum.samples << " samples)";
  options_.log.info(line.str());
  evaluation_ = {};
}

void Reporter::on_stop(StopReason reason) {
  stop_ = reason;
  if (progress_) progress_->finish();
  if (metrics_) metrics_->summary();
}

}  // namespace lockstep
