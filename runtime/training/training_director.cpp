// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/training_director.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/config/lr_schedule.hpp"

namespace lockstep {

TrainingDirector::TrainingDirector(const Config& config, const DataSplits& data, const ModelGraph& graph,
                                   const Losses& losses, const TrainerState& start, Publisher* publisher,
                                   const std::atomic<bool>* replan, const std::atomic<bool>* signalled)
    : config_(config),
      data_(data),
      graph_(graph),
      losses_(losses),
      targets_(graph, losses),
      sampler_(data.train->size(), config.seed),
      publisher_(publisher),
      replan_(replan),
      signalled_(signalled),
      first_step_(start.step),
      saved_us_(now_us()),
      step_(start.step),
      position_(start.position) {}

StepHeader TrainingDirector::next(const std::vector<StepResult>& finished, const WaitLimits& limits) {
  for (const StepResult& result : finished) {
    if (result.signalled && stop_ == StopReason::none) stop_ = StopReason::signal;
    // Of the last step it is known after the reason to stop with it.
    if (config_.train.stop_on_nan && result.non_finite.found()) stop_ = StopReason::not_finite;
  }
  // A signal to another rank comes with its results, one step later.
  if (stop_ == StopReason::none && signalled_ && signalled_->load()) stop_ = StopReason::signal;
  if (publisher_) {
    for (const StepResult& result : finished) publisher_->finished(result, limits);
    publisher_->advance(limits);
  }
  if (stop_ == StopReason::none && must_stop_after()) stop_ = StopReason::stop_after;
  if (stop_ == StopReason::none && must_replan()) stop_ = StopReason::replan;
  if (stop_ == StopReason::none) {
    if (evaluation_due()) return evaluation_step();
    if (step_ < config_.train.steps) return train_step();
  }
  return last_header(limits);
}

StepHeader TrainingDirector::last_header(const WaitLimits& limits) {
  StepHeader header;
  header.step = step_;
  // The first flush carries the results of the last step and waits until the shards are written, the next one carries
  // what was written.
  const bool again = publisher_ && flushed_ && publisher_->is_busy(limits);
  header.mode = flushed_ && !again ? Mode::stop : Mode::flush;
  // After a signal there was no header that knew it would be the last.
  const bool told = stop_ == StopReason::signal && config_.checkpoint.on();
  if (!flushed_ && told && publisher_ && publisher_->is_sound() && publisher_->last_step() < step_)
    request_save(header);
  flushed_ = true;
  header.stop = stop_ == StopReason::none ? StopReason::finished : stop_;
  return header;
}

bool TrainingDirector::must_stop_after() const {
  const std::int64_t after = config_.train.stop_after;
  return after > 0 && step_ - first_step_ >= after && step_ < config_.train.steps;
}

/// Between a save and the next step: whoever goes on from the checkpoint goes on from here.
bool TrainingDirector::must_replan() const {
  const bool at_checkpoint = publisher_ && publisher_->is_sound() && publisher_->last_step() == step_;
  return replan_ && replan_->load() && at_checkpoint && step_ > first_step_ && step_ < config_.train.steps;
}

bool TrainingDirector::save_due() const {
  if (!publisher_ || !publisher_->is_sound()) return false;
  if (must_stop_after()) return true;
  const CheckpointConfig& checkpoint = config_.checkpoint;
  if (!checkpoint.on()) return false;
  if (step_ == config_.train.steps) return true;
  if (checkpoint.every_steps() > 0) return step_ % checkpoint.every_steps() == 0;
  const bool wants_evaluation = checkpoint.best != "none" && step_ % config_.train.eval_every != 0;
  constexpr double minute_us = 60e6;
  const double pause_us = static_cast<double>(checkpoint.every_minutes()) * minute_us;
  return pause_us > 0 && !wants_evaluation && now_us() - saved_us_ >= pause_us;
}

void TrainingDirector::request_save(StepHeader& header) {
  header.save = true;
  saved_us_ = now_us();
  publisher_->request(step_, position_);
}

void TrainingDirector::saved(std::vector<std::string> shards) {
  LOCKSTEP_CHECK(publisher_, "shards that nobody wanted");
  publisher_->report(shards);
}

bool TrainingDirector::evaluation_due() const {
  const TrainConfig& train = config_.train;
  if (!data_.eval || train.eval_every == 0 || step_ == 0 || evaluated_step_ == step_) return false;
  return step_ % train.eval_every == 0 || step_ == train.steps;
}

StepHeader TrainingDirector::train_step() {
  StepHeader header;
  header.mode = Mode::train;
  header.step = ++step_;
  header.learning_rate =
      learning_rate(config_.train.lr_schedule, config_.train.optimizer.lr, step_, config_.train.steps);
  const std::vector<std::int64_t> samples = sampler_.batch(position_, config_.train.batch);
  position_ += static_cast<std::int64_t>(samples.size());
  if (save_due()) request_save(header);
  return load(std::move(header), *data_.train, samples, config_.train.batch);
}

StepHeader TrainingDirector::evaluation_step() {
  const std::int64_t batch = config_.train.eval_batch > 0 ? config_.train.eval_batch : config_.train.batch;
  const std::int64_t rows = std::min(batch, data_.eval->size() - evaluation_position_);
  std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
  std::iota(samples.begin(), samples.end(), evaluation_position_);
  evaluation_position_ += rows;
  ++evaluation_steps_;
  StepHeader header;
  header.mode = Mode::evaluate;
  header.step = step_;
  header.last_of_evaluation =
      evaluation_position_ >= data_.eval->size() || evaluation_steps_ == config_.train.eval_steps;
  if (header.last_of_evaluation) {
    evaluated_step_ = step_;
    evaluation_position_ = evaluation_steps_ = 0;
  }
  return load(std::move(header), *data_.eval, samples, batch);
}

StepHeader TrainingDirector::load(StepHeader header, const Dataset& dataset, const std::vector<std::int64_t>& samples,
                                  std::int64_t batch) {
  // An evaluation batch may be smaller than the number of micro-batches.
  const int micro_batches = static_cast<int>(std::min<std::int64_t>(config_.train.micro_batches, batch));
  batch_ = read_samples(dataset, samples);
  targets_.check_batch(dataset, samples, batch_);
  slices_ = slice_rows(batch, micro_batches, static_cast<std::int64_t>(samples.size()));
  header.slices = slices_;
  // A batch whose targets are all ignored has no loss and no gradient; 0 / 1 says so without a NaN.
  for (std::size_t head = 0; head < losses_.size(); ++head) {
    const double denominator = losses_[head]->denominator(batch_[graph_.heads[head].source]);
    header.heads.push_back({0.0, std::max(1.0, denominator), graph_.heads[head].weight});
  }
  return header;
}

Tensors TrainingDirector::micro_batch(int micro_batch) {
  const std::int64_t start = std::accumulate(slices_.begin(), slices_.begin() + micro_batch, std::int64_t{0});
  Tensors entries;
  for (const at::Tensor& entry : batch_) entries.push_back(entry.narrow(0, start, slices_[micro_batch]).contiguous());
  return entries;
}

}  // namespace lockstep
