// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/training_director.hpp"

#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"

namespace lockstep {

TrainingDirector::TrainingDirector(const Assembly& assembly, BatchReader& reader, const TrainerState& start,
                                   const TrainingOrders& orders, Publisher* publisher,
                                   const std::atomic<bool>* signalled, Log log)
    : assembly_(assembly),
      log_(std::move(log)),
      config_(assembly.config),
      reader_(reader),
      evaluation_(assembly, reader),
      orders_(orders),
      publisher_(publisher),
      signalled_(signalled),
      stop_on_nan_(orders.stop_on_nan.value_or(assembly.config.train.stop_on_nan)),
      plateau_(start.plateau),
      stopping_(start.stopping),
      first_step_(start.step),
      saved_us_(now_us()),
      step_(start.step),
      position_(start.position) {
  if (orders_.last_step == 0) orders_.last_step = config_.train.steps;
  const EarlyStoppingConfig& stopping = config_.train.early_stopping;
  if (stopping.given && orders_.evaluates)
    watched_ = watched_of(assembly, stopping.watch, config_.root.section("train"), "early_stopping");
  if (watched_ && stopping_.reductions > 0) stop_ = StopReason::no_progress;  // it has ended before
}

void TrainingDirector::take(StepResult& result) {
  if (result.signalled && stop_ == StopReason::none) stop_ = StopReason::signal;
  // Of the last step it is known after the reason to stop with it.
  if (stop_on_nan_ && result.non_finite.found()) stop_ = StopReason::not_finite;
  if (result.mode == Mode::evaluate)
    if (const std::optional<StepResult> all = evaluated_.add(result)) evaluated(*all);
  if (publisher_) untold_.push_back({result, plateau_, stopping_});
}

void TrainingDirector::evaluated(const StepResult& evaluation) {
  const std::int64_t step = evaluation.step;
  if (const LrScheduleConfig& schedule = config_.train.lr_schedule; schedule.is(LrScheduleType::plateau)) {
    const std::int64_t before = plateau_.reductions;
    count_evaluation(schedule, plateau_, step, evaluation.loss());
    if (plateau_.reductions > before)
      log_.info(concat("lr_schedule plateau: the evaluation after step ", step, " is the last of more than ",
                       schedule.patience, " without progress: lr is ", rate_of(step + 2), " from step ", step + 2,
                       " on"));
  }
  if (!watched_) return;
  count_evaluation(config_.train.early_stopping, stopping_, step, watched_->badness(evaluation));
  if (stopping_.reductions > 0 && stop_ == StopReason::none) stop_ = StopReason::no_progress;
}

StepHeader TrainingDirector::next(const WaitLimits& limits) {
  // A signal to another rank comes with its results, one step later.
  if (stop_ == StopReason::none && signalled_ && signalled_->load()) stop_ = StopReason::signal;
  if (publisher_) {
    for (const Told& told : std::exchange(untold_, {}))
      publisher_->finished(told.result, told.plateau, told.stopping, limits);
    publisher_->advance(limits);
  }
  if (stop_ == StopReason::none && must_stop_after()) stop_ = StopReason::stop_after;
  if (stop_ == StopReason::none && must_replan()) stop_ = StopReason::replan;
  if (stop_ != StopReason::none) return last_header(limits);
  if (evaluation_due()) {
    StepHeader header = evaluation_.next(step_);
    if (evaluation_.ended()) evaluated_step_ = step_;
    return header;
  }
  return step_ < orders_.last_step ? train_step() : last_header(limits);
}

StepHeader TrainingDirector::last_header(const WaitLimits& limits) {
  StepHeader header;
  header.step = step_;
  // The first flush carries the results of the last step and waits until the shards are written, the next one carries
  // what was written.
  const bool again = publisher_ && flushed_ && publisher_->is_busy(limits);
  header.mode = flushed_ && !again ? Mode::stop : Mode::flush;
  // Before these there was no header that knew it would be the last.
  const bool told = (stop_ == StopReason::signal || stop_ == StopReason::no_progress) && config_.checkpoint.on();
  if (!flushed_ && told && publisher_ && publisher_->is_sound() && publisher_->last_step() < step_)
    request_save(header);
  flushed_ = true;
  header.stop = stop_ == StopReason::none ? StopReason::finished : stop_;
  return header;
}

bool TrainingDirector::must_stop_after() const {
  const std::int64_t after = config_.train.stop_after;
  return after > 0 && step_ - first_step_ >= after && step_ < orders_.last_step;
}

/// Between a save and the next step: whoever goes on from the checkpoint goes on from here.
bool TrainingDirector::must_replan() const {
  const bool at_checkpoint = publisher_ && publisher_->is_sound() && publisher_->last_step() == step_;
  return orders_.replan && orders_.replan->load() && at_checkpoint && step_ > first_step_ && step_ < orders_.last_step;
}

bool TrainingDirector::save_due() const {
  if (!publisher_ || !publisher_->is_sound()) return false;
  if (must_stop_after()) return true;
  const CheckpointConfig& checkpoint = config_.checkpoint;
  if (!checkpoint.on()) return false;
  if (step_ == orders_.last_step) return true;
  if (checkpoint.every_steps() > 0) return step_ % checkpoint.every_steps() == 0;
  const bool wants_evaluation = checkpoint.keeps_best() && step_ % config_.train.eval_every != 0;
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
  if (!orders_.evaluates || !assembly_.data.eval || train.eval_every == 0) return false;
  if (step_ == 0 || evaluated_step_ == step_) return false;
  return step_ % train.eval_every == 0 || step_ == orders_.last_step;
}

double TrainingDirector::rate_of(std::int64_t step) const {
  const TrainConfig& train = config_.train;
  double base = train.optimizer.lr;
  if (train.lr_schedule.is(LrScheduleType::plateau)) base = reduced_rate(train.lr_schedule, plateau_, base, step);
  const double rate = assembly_.learning_rate(base, step);
  if (!(rate >= 0) || std::isinf(rate))  // of a plug-in's schedule
    throw config_.root.section("train")
        .section("lr_schedule")
        .error("type", concat("the schedule ", train.lr_schedule.type_name(), " gave the rate ", rate, " for step ",
                              step, ", expected a number >= 0"));
  return rate;
}

StepHeader TrainingDirector::train_step() {
  StepHeader header;
  header.mode = Mode::train;
  header.step = ++step_;
  header.learning_rate = rate_of(step_);
  header.norms = config_.train.norms_every > 0 && step_ % config_.train.norms_every == 0;
  reader_.open(header, position_);
  position_ += std::accumulate(header.slices.begin(), header.slices.end(), std::int64_t{0});
  if (save_due()) request_save(header);
  return header;
}

void EvaluationDirector::take(StepResult& result) {
  if (result.signalled && stop_ == StopReason::finished) stop_ = StopReason::signal;
  if (result.non_finite.found()) stop_ = StopReason::not_finite;  // who asks for one evaluation wants to know
}

StepHeader EvaluationDirector::next(const WaitLimits&) {
  if (stop_ == StopReason::finished && signalled_ && signalled_->load()) stop_ = StopReason::signal;
  if (!done_ && stop_ == StopReason::finished) {
    StepHeader header = pass_.next(step_);
    done_ = pass_.ended();
    return header;
  }
  StepHeader header;
  header.step = step_;
  header.mode = std::exchange(flushed_, true) ? Mode::stop : Mode::flush;
  header.stop = stop_;
  return header;
}

}  // namespace lockstep
