// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/doubts.hpp"

#include <algorithm>

#include "runtime/config/lr_schedule.hpp"

namespace lockstep {
namespace {

class Doubts {
 public:
  explicit Doubts(const Config& config)
      : config_(config), train_(config.train), section_(config.root.section("train")) {}

  std::vector<std::string> all(std::int64_t samples) {
    if (train_.batch > samples)
      add(section_, "batch",
          concat("got ", train_.batch, ", but there are ", samples, " training samples: every step trains with ",
                 samples));
    optimizer();
    schedule();
    devices();
    if (train_.eval_every == 0 && train_.eval_steps + train_.eval_batch > 0)
      add(section_, train_.eval_steps > 0 ? "eval_steps" : "eval_batch",
          "does nothing without train.eval_every: training evaluates nothing");
    servers();
    return std::move(found_);
  }

 private:
  void add(const Section& section, const std::string& key, const std::string& message) {
    found_.emplace_back(section.error(key, message).what());
  }

  void servers() {
    const ReplicasConfig& replicas = config_.replicas;
    const ReplicasConfig defaults;
    if (replicas.has_servers()) return;
    for (const auto& [key, is_given] : {std::pair("servers", replicas.servers != defaults.servers),
                                        std::pair("max_staleness", replicas.max_staleness != defaults.max_staleness)})
      if (is_given)
        add(config_.root.section("replicas"), key,
            concat("does nothing with strategy ", to_string(replicas.strategy), ": it is of parameter_server alone"));
  }

  void optimizer() {
    const OptimizerConfig& optimizer = train_.optimizer;
    const Section section = section_.section("optimizer");
    if (optimizer.lr == 0) add(section, "lr", "got 0: no parameter will change");
    const bool is_ours = optimizer.plugin.name.empty();
    if (is_ours && optimizer.type == OptimizerType::sgd && optimizer.momentum >= 1)
      add(section, "momentum",
          concat("got ", optimizer.momentum,
                 ": no gradient is ever forgotten, so that updates grow without bound; it is usually 0.9"));
    // These subtract lr * weight_decay of every weight from it; the others' decay goes through what they divide by.
    using enum OptimizerType;
    const bool subtracts = optimizer.type == sgd || optimizer.type == adamw || optimizer.type == adafactor;
    if (const double taken = optimizer.lr * optimizer.weight_decay; is_ours && subtracts && taken >= 1)
      add(section, "weight_decay",
          concat("got ", optimizer.weight_decay, " with lr ", optimizer.lr, ": an update takes ", taken,
                 " times each weight away from it; their product is usually far below 1"));
  }

  void schedule() {
    const LrScheduleConfig& schedule = train_.lr_schedule;
    const double lr = train_.optimizer.lr;
    const Section section = section_.section("lr_schedule");
    if (schedule.warmup_steps > train_.steps)
      add(section, "warmup_steps",
          concat("got ", schedule.warmup_steps, ", but training has ", train_.steps,
                 " steps: it ends in the warm-up, at a learning rate of ",
                 learning_rate(schedule, lr, train_.steps, train_.steps), " instead of ", lr));
    if ((schedule.decays() || schedule.is(LrScheduleType::plateau)) && schedule.min_lr > lr)
      add(section, "min_lr",
          concat("got ", schedule.min_lr, ", which is above lr (", lr, "): the learning rate ",
                 schedule.decays() ? "rises" : "is never reduced"));
    if (schedule.decays() && schedule.decay_steps > 0 && schedule.decay_steps <= schedule.warmup_steps)
      add(section, "decay_steps",
          concat("got ", schedule.decay_steps, ", which is not after the warm-up (", schedule.warmup_steps,
                 " steps): the learning rate drops to min_lr at once; it is counted from step 1"));
    const std::int64_t end = schedule.decay_steps > 0 ? schedule.decay_steps : train_.steps;
    if (schedule.is(LrScheduleType::wsd) && end > schedule.warmup_steps &&
        schedule.warmup_steps + schedule.stable_steps >= end)
      add(section, "stable_steps",
          concat("got ", schedule.stable_steps, ", with which the decay begins behind step ",
                 schedule.warmup_steps + schedule.stable_steps, ", and ends at step ", end,
                 ": the learning rate hardly decays"));
    if (const std::int64_t evaluations = train_.eval_every > 0 ? train_.steps / train_.eval_every : 0;
        schedule.is(LrScheduleType::plateau) && evaluations - 1 <= schedule.patience)
      add(section, "patience",
          concat("got ", schedule.patience, ", but training has ", evaluations,
                 " evaluations: the learning rate is never reduced"));
    if (schedule.is(LrScheduleType::step) && schedule.step_every >= train_.steps)
      add(section, "step_every",
          concat("got ", schedule.step_every, ", but training has ", train_.steps,
                 " steps: the learning rate never drops"));
    if (schedule.is(LrScheduleType::step) && schedule.step_factor > 1)
      add(section, "step_factor", concat("got ", schedule.step_factor, ", which is above 1: the learning rate rises"));
  }

  void devices() {
    if (!config_.workers.on_cpus_alone()) return;
    const Section section = config_.root.section("kernels");
    if (!config_.kernels.deterministic)
      add(section, "deterministic", "got false, which does nothing on CPUs: they are deterministic");
    if (config_.kernels.float32_matmul != Float32Matmul::exact)
      add(section, "float32_matmul",
          concat("got ", name_of(config_.kernels.float32_matmul), ", which does nothing on CPUs: it is of devices"));
    if (config_.comm.device_buffers)
      add(config_.root.section("comm"), "device_buffers", "got true, which does nothing on CPUs: it is of devices");
  }

  const Config& config_;
  const TrainConfig& train_;
  Section section_;
  std::vector<std::string> found_;
};

}  // namespace

std::vector<std::string> doubts_of(const Config& config, std::int64_t samples) {
  return Doubts(config).all(samples);
}

std::string doubt_of_losses(const std::vector<double>& losses, const Config& config) {
  constexpr double kGrown = 100;    // steps differ by their samples, but not by that much for long
  constexpr std::size_t kLast = 5;  // so many in a row
  if (losses.size() < 2 || !(losses.front() > 0)) return "";
  const std::size_t last = std::min(kLast, losses.size() - 1);
  const double least = *std::min_element(losses.end() - static_cast<std::ptrdiff_t>(last), losses.end());
  if (!(least > kGrown * losses.front())) return "";
  return concat("the loss has grown from ", losses.front(), " in the first step to ", losses.back(),
                " in the last: the model has become worse, not better; lower train.optimizer.lr (it is ",
                config.train.optimizer.lr, ") or clip gradients (train.clip_grad_norm)");
}

}  // namespace lockstep
