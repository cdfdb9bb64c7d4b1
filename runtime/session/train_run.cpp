// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/train_run.hpp"

#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>

#include "runtime/base/output_file.hpp"
#include "runtime/base/text_table.hpp"
#include "runtime/checkpoint/manifest.hpp"
#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/config/doubts.hpp"
#include "runtime/host/stop_signals.hpp"
#include "runtime/observe/reporter.hpp"
#include "runtime/observe/story.hpp"
#include "runtime/observe/trace.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/session/auto_partition.hpp"
#include "runtime/session/fingerprint.hpp"
#include "runtime/session/gather_timeline.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/prepared_job.hpp"
#include "runtime/session/rebalance.hpp"
#include "runtime/session/run_folder.hpp"
#include "runtime/training/not_finite.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

/// For whoever stops a job by hand, at once: what it does now, and how to leave sooner. The console alone; one write.
void announce_stop(const Config& config) {
  // Nobody reads: to wait for it would keep a later signal from being heard.
  pollfd console{STDERR_FILENO, POLLOUT, 0};
  if (poll(&console, 1, 0) != 1 || (console.revents & POLLOUT) == 0) return;
  // A progress line may stand there, and what the terminal echoed of a Ctrl-C.
  const std::string clear = isatty(STDERR_FILENO) == 1 ? concat(Console::kDraw, Console::kErase) : "";
  std::cerr << concat(
                   clear, "stopping after this step",
                   config.checkpoint.on() ? ", with a checkpoint" : " (checkpoint.every: never, so nothing is saved)",
                   "; signal again (Ctrl-C) after a second to leave at once\n")
            << std::flush;
}

/// What every row computes in a step as the plan predicts; empty without a prediction.
std::vector<double> expected_us(const LoadedConfig& loaded) {
  std::vector<double> by_row;
  if (!loaded.plan || !loaded.plan->predicted) return by_row;
  const PlanPrediction& p = *loaded.plan->predicted;
  by_row.resize(p.compute_us.size(), 0.0);
  for (std::size_t s = 0; s < p.stages.size(); ++s) {
    const auto first = p.layers.begin() + static_cast<std::ptrdiff_t>(p.first_layer(s));
    for (auto layer = first; layer < first + p.stages[s].layers; ++layer)
      by_row[static_cast<std::size_t>(p.stages[s].row)] += layer->step_us;
  }
  return by_row;
}

}  // namespace

namespace {

/// "4 workers and 2 servers"
std::string workers_text(const Trainer& trainer) {
  const int servers = trainer.partition().topology.servers;
  const std::size_t workers = trainer.layout().rank_of_row.size() - static_cast<std::size_t>(servers);
  const auto number = [](auto count, const char* one) { return concat(count, " ", one, count == 1 ? "" : "s"); };
  return servers == 0 ? concat(workers, " workers")
                      : concat(number(workers, "worker"), " and ", number(servers, "server"));
}

}  // namespace

std::string dump_folder(const std::string& run_dir, std::int64_t step) {
  return concat(run_dir, "/dump/step-", step);
}

namespace {

class TrainRun {
 public:
  /// References outlive it.
  TrainRun(Process& process, const PreparedJob& job, const TrainOptions& options, const KindsOfRows& kinds,
           const std::vector<double>& expected_us)
      : process_(process), trainer_(*job.trainer), options_(options), resume_(job.resume), plan_(job.loaded.plan) {
    const std::string& run_dir = trainer_.config().run_dir;
    process_.together([&] {
      record_ = range_to_record(options.trace_steps, trainer_);
      const std::int64_t first = trainer_.start().step + 1, last = trainer_.config().train.steps;
      if (options.dump_step != 0 && (options.dump_step < first || options.dump_step > last))
        throw UserError(
            concat("--dump-step: got ", options.dump_step, ", expected a step of this run, ", first, " to ", last));
      if (options.dump_step != 0 && trainer_.partition().topology.servers > 0)
        throw UserError(
            "--dump-step: the job has servers, of which nothing is dumped; train the step with --set "
            "replicas.strategy=mirrored");
      if (process_.is_root()) {
        for (const auto& [flag, path] : {std::pair("--metrics", options.metrics),
                                         {"--fingerprint", options.fingerprint},
                                         {"--trace", options.trace}})
          if (!path.empty() && !RunFolder::holds(run_dir, path)) check_writable(flag, path);
        folder_ = std::make_unique<RunFolder>(run_dir, resume_.reuses_folder);
        folder_->write("config.yaml", resolved_yaml(trainer_.config()));
        if (plan_) folder_->write("plan.yaml", to_yaml(*plan_));
        fresh_recorder_folder(run_dir);
      }
    });
    process_.together([&] { open_log(run_dir); });
    process_.set_run_folder(run_dir);
    log_.info(job.kernels);
    for (const std::string& note : job.loaded.notes) log_.info(note);
    log_.info(stage_table(trainer_));
    log_.info(concat("schedule ", trainer_.config().pipeline.schedule, ", ", trainer_.micro_batches(),
                     " micro-batches, ", stages_text(trainer_.partition().topology), ", ", workers_text(trainer_),
                     " on ", process_.size(), " rank(s), run folder ", run_dir));
    if (process_.is_root())  // every rank has the same
      for (const std::string& warning : trainer_.warnings()) log_.warn(warning);
    log_resume();
    if (trainer_.initial_weights()) log_.info(trainer_.initial_weights()->summary());
    const std::string shared = shared_cores(process_, trainer_);
    if (!shared.empty() && process_.is_root()) log_.warn(shared);
    const bool has_servers = trainer_.partition().topology.servers > 0;
    if (shared.empty() && !has_servers && trainer_.layout().rank_of_row.front() == trainer_.layout().here)
      rebalancer_ = std::make_unique<Rebalancer>(trainer_, *reporter_, kinds, expected_us, options_.replan, log_);
  }

  TrainResult run() {
    RunOptions fit;
    TrainingOrders orders;
    fit.observer = reporter_.get();
    if (rebalancer_) {
      fit.observer = rebalancer_.get();
      orders.replan = &rebalancer_->wanted();
    }
    fit.signalled = &StopSignals::asked();
    fit.measure_products = true;
    fit.checkpoints = checkpoints_of(trainer_.config().run_dir);
    fit.log = log_;
    fit.record = record_;
    fit.dump_step = options_.dump_step;
    fit.take_dump = [this](int row, const DumpedTensors& tensors) { write_dump(row, tensors); };
    fit.recorder_folder = recorder_folder(trainer_.config().run_dir);
    TimelineGatherer gatherer(process_);
    const JobOutcome outcome = trainer_.fit(fit, orders);
    const auto hashes = gather_fingerprint(process_, trainer_.graph(), outcome);
    if (process_.is_root()) write_fingerprint(hashes);
    std::optional<RunTimeline> timeline = gatherer.gather(trainer_, outcome, record_);
    write_timeline(timeline);
    for (const std::string& found : process_.all_gather(outcome.not_finite))
      if (not_finite_.empty()) not_finite_ = found;
    const JobEnd end = finish();
    TrainResult result;
    result.exit_code = end.code;
    result.message = end.message;
    result.step = last_step();
    if (reporter_->last_step()) result.loss = reporter_->last_step()->loss();
    result.checkpoint = newest_checkpoint();
    result.timeline = std::move(timeline);
    return result;
  }

  /// Where the run goes on, when it left to move layers. Collective.
  std::optional<Rebalanced> moved() {
    if (reporter_->stop_reason() != StopReason::replan) return std::nullopt;
    const std::vector<std::string> all = process_.all_gather(rebalancer_ ? to_text(*rebalancer_->found()) : "");
    for (const std::string& text : all)
      if (!text.empty()) return rebalanced_from(text);
    return std::nullopt;
  }

 private:
  void open_log(const std::string& run_dir) {
    log_ = process_.log(run_dir + (process_.is_root() ? "/log.txt" : concat("/log.rank", process_.rank(), ".txt")));
    ReporterOptions reporter;
    reporter.steps = trainer_.config().train.steps;
    reporter.log_every = trainer_.config().train.log_every;
    if (!trainer_.data().further_evals.empty()) reporter.sets = {"eval"};
    for (const EvaluationSet& set : trainer_.data().further_evals) reporter.sets.push_back(set.name);
    reporter.tokens_per_sample = trainer_.graph().tokens_per_sample();
    for (const ParameterInfo& parameter : trainer_.graph().parameters) reporter.parameters.push_back(parameter.name);
    reporter.bytes_of_element = master_bytes(trainer_.config().train.precision);
    reporter.log = log_;
    reporter.program = [this]() -> const Program& {
      return trainer_.programs().get(Mode::train, trainer_.micro_batches());
    };
    if (plan_) reporter.planned = plan_->predicted;
    if (resume_.reuses_folder) reporter.resume_after = trainer_.start().step;
    if (process_.is_root()) {
      reporter.metrics_file = options_.metrics.empty() ? folder_->file("metrics.jsonl") : options_.metrics;
      reporter.tensorboard_folder = folder_->folder("tensorboard");
      reporter.console = process_.console();
    }
    reporter_ = std::make_unique<Reporter>(reporter);
  }

  void write_fingerprint(const std::map<std::string, std::uint64_t>& hashes) const {
    TrainerState state = trainer_.start();
    for (const double loss : reporter_->losses()) {
      state.losses = losses_hash(state.losses, state.loss = loss);
      ++state.step;
    }
    const std::string json = fingerprint_json(state, hashes);
    folder_->write("fingerprint.json", json);
    if (!options_.fingerprint.empty()) write_whole_file(options_.fingerprint, json);
  }

  void log_resume() const {
    for (const std::string& damage : resume_.skipped)
      log_.warn(concat("a damaged checkpoint is passed over: ", damage));
    if (resume_.checkpoint.empty()) {
      if (resume_.reuses_folder) log_.info("there is no checkpoint yet: training starts from the beginning");
      return;
    }
    log_.info(concat("resumed after step ", trainer_.start().step, " from ", resume_.checkpoint));
    const ResumeFindings& found = trainer_.resumption();
    for (const std::string& change : found.changed) log_.info(concat("changed knowingly: ", change));
    for (const std::string& note : found.notes) log_.info(note);
    if (!found.warning.empty() && process_.is_root()) log_.warn(found.warning);
    const std::string difference = environment_difference(trainer_.resumed_state(), trainer_.start().environment);
    if (!difference.empty())
      log_.warn(concat("bits may differ from an unbroken run: ", difference, " (see docs/numerics.md)"));
  }

  std::int64_t last_step() const {
    return reporter_->last_step() ? reporter_->last_step()->step : trainer_.start().step;
  }

  /// As rank 0 sees it.
  std::string newest_checkpoint() const {
    std::string path;
    if (process_.is_root())
      for (const CheckpointPlace& place : list_checkpoints(checkpoints_of(trainer_.config().run_dir)))
        path = place.path;
    return process_.all_gather(path).front();
  }

  void write_timeline(std::optional<RunTimeline>& timeline) const {
    if (!process_.is_root()) return;
    if (!timeline) {
      if (!options_.trace.empty())
        log_.warn(concat("no trace: the run ended before step ", record_.first, ", the first that was to be recorded"));
      return;
    }
    if (plan_ && plan_->predicted) timeline->planned_bytes = plan_->predicted->peak_bytes;
    if (const std::int64_t limit = trainer_.config().workers.memory_limit; limit > 0)
      timeline->limit_bytes.assign(static_cast<std::size_t>(timeline->workers()), static_cast<double>(limit));
    folder_->write("timeline.json", to_json(*timeline));
    if (options_.trace.empty()) return;
    write_whole_file(options_.trace, chrome_trace(*timeline));
    const std::int64_t last = timeline->first_step + timeline->steps - 1;
    log_.info(concat("trace of step ", timeline->first_step, timeline->steps > 1 ? concat(" to ", last) : "",
                     timeline->cut ? " (the limit of spans was reached)" : "", " in ", options_.trace,
                     "; open it in ui.perfetto.dev or chrome://tracing"));
  }

  void write_dump(int row, const DumpedTensors& tensors) const {
    const std::string folder = dump_folder(trainer_.config().run_dir, options_.dump_step);
    std::error_code failure;
    std::filesystem::create_directories(folder, failure);  // what is wrong is said when the file is written
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : tensors) named.push_back({name, tensor, /*may_be_infinite=*/true});
    const std::string name = concat("worker-", row, ".safetensors");
    write_safetensors(folder, name, named);
    log_.info(
        concat("step ", options_.dump_step, ": activations and gradients of worker ", row, " in ", folder, "/", name));
  }

  /// Says how the job ended, and leaves word of it for `lockstep why`.
  JobEnd finish() const {
    const JobEnd end = ending();
    const std::string doubt = end.code == 0 ? doubt_of_losses(reporter_->losses(), trainer_.config()) : "";
    if (process_.is_root() && !doubt.empty()) log_.warn(doubt);
    if (end.code == 0 || !process_.is_root())
      log_.info(end.message);  // on the console of one rank, in the log files of all
    else
      log_.error(end.message);
    if (process_.is_root()) remember(trainer_.config().run_dir, end);
    return end;
  }

  JobEnd ending() const {
    const std::int64_t steps = trainer_.config().train.steps;
    if (!not_finite_.empty() && reporter_->stop_reason() != StopReason::not_finite &&
        trainer_.config().train.stop_on_nan)
      return {static_cast<int>(ExitCode::fault),
              concat("broken weights after step ", last_step(), ": ", not_finite_,
                     ", though every loss and gradient was finite; lower the learning rate, or raise "
                     "train.optimizer.eps")};
    switch (reporter_->stop_reason()) {
      case StopReason::none:
      case StopReason::finished:
        if (reporter_->last_step())
          return {0, concat("done: ", last_step(), " steps, last loss ", reporter_->last_step()->loss())};
        return {0, concat("nothing is left to train: the checkpoint is of step ", last_step(), " of ", steps)};
      case StopReason::stop_after:
        return {
            0, concat("stopped after step ", last_step(), " of ", steps, " (train.stop_after); --resume auto goes on")};
      case StopReason::no_progress:
        return {0, concat("stopped after step ", last_step(), " of ", steps, ": more than ",
                          trainer_.config().train.early_stopping.patience, " evaluations in a row were no better by ",
                          trainer_.config().train.early_stopping.watch, " (train.early_stopping)")};
      case StopReason::replan: return {0, concat("stopped after step ", last_step(), " of ", steps, " to move layers")};
      case StopReason::signal: return {0, concat("stopped by a signal after step ", last_step(), " of ", steps)};
      case StopReason::not_finite: return {static_cast<int>(ExitCode::fault), not_finite_message()};
    }
    return {static_cast<int>(ExitCode::fault), "stopped"};
  }

  std::string not_finite_message() const {
    const NotFiniteRun& run = *reporter_->not_finite();
    return concat(
        "stopped: not finite in ", run.mode == Mode::train ? "step " : "the evaluation after step ", run.step, ": ",
        describe(run.first, trainer_.graph()), " (", samples_text(trainer_.config(), trainer_.data(), run),
        "); lower the learning rate, clip gradients (train.clip_grad_norm), or look at the data of these samples");
  }

  Process& process_;
  Trainer& trainer_;
  const TrainOptions& options_;
  const ResumePoint& resume_;
  const std::optional<PlanFile>& plan_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<Reporter> reporter_;
  std::unique_ptr<Rebalancer> rebalancer_;  // where row 0 is
  Log log_;
  RecordRange record_;
  std::string not_finite_;  // JobOutcome::not_finite of the first rank that has one
};

/// For the next part of a run; what was predicted for the cuts before is of no use to it.
void take_cuts(LoadedConfig& loaded, const std::vector<int>& layers_per_stage) {
  loaded.notes = {concat("layers per stage from here on: [", join(layers_per_stage), "]")};
  loaded.config.pipeline.partition = {};
  loaded.config.pipeline.partition.counts = layers_per_stage;
  if (!loaded.plan) return;
  loaded.plan->predicted.reset();
  loaded.plan->profile.clear();  // the workers are not as fast as it says
}

}  // namespace

TrainResult train(Process& process, const TrainOptions& options) {
  PreparedJob job = prepare_job(process, options.source, {.resume = options.resume, .changes = options.changes});
  if (options.replan && !job.trainer->config().checkpoint.on())
    process.together([] {
      throw UserError(
          "--replan: got checkpoint.every: never, expected a number of steps or minutes; layers move at a "
          "checkpoint");
    });
  std::vector<double> expected = expected_us(job.loaded);
  const KindsOfRows kinds = kinds_of_rows(*job.trainer, job.loaded);
  process.stop_when_asked([&process, config = job.trainer->config()](int) {
    if (process.is_root()) announce_stop(config);
  });
  while (true) {
    process.connect(*job.trainer);
    std::optional<Rebalanced> moved;
    {
      TrainRun run(process, job, options, kinds, expected);
      TrainResult result = run.run();
      moved = run.moved();
      if (!moved) {
        process.end_run();
        return result;
      }
    }
    take_cuts(job.loaded, moved->layers_per_stage);
    expected = moved->expected_us;
    process.together([&] { job.trainer = make_planned_trainer(options.source, job.loaded, process.ranks()); });
    process.together([&] { job.resume = choose_checkpoint(process, "auto", job.trainer->config().run_dir); });
    process.together([&] { job.trainer->resume(job.resume.checkpoint); });
    process.compare(*job.trainer);
  }
}

}  // namespace lockstep
