// SPDX-License-Identifier: Apache-2.0
//
// `lockstep train`: one process, or every rank of an mpirun.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>
#include <map>

#include "runtime/base/output_file.hpp"
#include "runtime/checkpoint/manifest.hpp"
#include "runtime/schedule/simulate.hpp"
#include "runtime/schedule/text.hpp"
#include "runtime/training/doubts.hpp"
#include "runtime/training/reporter.hpp"
#include "runtime/training/schedule_choice.hpp"
#include "tools/command.hpp"
#include "tools/fingerprint.hpp"
#include "tools/gather_timeline.hpp"
#include "tools/planning.hpp"
#include "tools/rebalance.hpp"
#include "tools/resume.hpp"
#include "tools/run_folder.hpp"
#include "tools/stop_signals.hpp"
#include "tools/table.hpp"
#include "tools/trace.hpp"
#include "tools/why.hpp"

namespace lockstep {
namespace {

struct TrainOptions {
  ConfigSource source;
  std::vector<std::string> changes;
  std::string metrics, fingerprint, resume, trace, trace_steps;
  bool dry_run = false, replan = false;
};

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

/// Parameters, gradients and optimizer state of each stage: what is known without costs.
std::string memory_of_state(const Trainer& trainer) {
  std::map<std::string, std::vector<int>> stages_of;  // stages alike are said once
  std::vector<std::string> order;
  const double each = 8 + optimizer_bytes(trainer.config().train.optimizer);
  for (int stage = 0; stage < trainer.partition().stages(); ++stage) {
    std::int64_t elements = 0;
    for (int layer = trainer.partition().first_layer[stage]; layer < trainer.partition().first_layer[stage + 1];
         ++layer)
      elements += trainer.graph().elements_of_layer(layer);
    std::ostringstream size;
    size << std::fixed << std::setprecision(1) << static_cast<double>(elements) * each / 1048576;
    std::vector<int>& stages = stages_of[size.str()];
    if (stages.empty()) order.push_back(size.str());
    stages.push_back(stage);
  }
  std::string text;
  for (const std::string& size : order) {
    const std::vector<int>& stages = stages_of.at(size);
    text += concat(stages.size() == 1 ? "stage " : "stages ", ranges_text(stages),
                   ": parameters, gradients and optimizer state need ", size, stages.size() == 1 ? " MiB" : " MiB each",
                   ", activations come on top\n");
  }
  return text;
}

int dry_run(Process& process, const Trainer& trainer, Programs& programs, const LoadedConfig& loaded) {
  if (!process.is_root()) return 0;
  const Program& program = programs.get(Mode::train, trainer.micro_batches());
  const bool planned = loaded.plan && loaded.plan->predicted, given = trainer.config().pipeline.costs.given;
  const Simulation simulation =
      simulate(program, planned ? loaded.plan->predicted->costs : costs_of(trainer.config(), trainer.partition()));
  DrawOptions drawing;
  drawing.width = columns_of_terminal(STDOUT_FILENO, drawing.width);
  for (const std::string& note : loaded.notes) std::cout << note << "\n";
  std::cout << (planned ? plan_table(*loaded.plan) : stage_table(trainer) + "\n") << "\ntimeline of one step, "
            << (planned ? "with the plan's costs:\n"
                : given ? "with pipeline.costs:\n"
                        : "as if all stages took the same time (forward 1, backward 2):\n")
            << draw(simulation.timeline, drawing) << "bubble " << std::fixed << std::setprecision(1)
            << simulation.bubble * 100 << " %\n\n";
  if (!planned) std::cout << memory_of_state(trainer);
  for (const std::string& warning : trainer.warnings()) std::cout << "warning: " << warning << "\n";
  std::cout << "dry run: nothing was trained or written\n";
  return 0;
}

/// What every row computes in a step as the plan predicts; empty without a prediction.
std::vector<double> expected_us(const LoadedConfig& loaded) {
  std::vector<double> by_row;
  if (!loaded.plan || !loaded.plan->predicted) return by_row;
  const PlanPrediction& p = *loaded.plan->predicted;
  by_row.resize(p.compute_us.size(), 0.0);
  auto layer = p.layers.begin();
  for (const PredictedStage& stage : p.stages)
    for (int i = 0; i < stage.layers; ++i, ++layer) by_row[static_cast<std::size_t>(stage.row)] += layer->step_us;
  return by_row;
}

class TrainRun {
 public:
  TrainRun(Process& process, Trainer& trainer, const TrainOptions& options, const ResumePoint& resume,
           const LoadedConfig& loaded, const std::string& kernels, const std::vector<double>& expected_us)
      : process_(process), trainer_(trainer), options_(options), resume_(resume), plan_(loaded.plan) {
    const std::string& run_dir = trainer.config().run_dir;
    process_.together([&] {
      record_ = range_to_record(options.trace_steps, trainer);
      if (process_.is_root()) {
        for (const auto& [flag, path] : {std::pair("--metrics", options.metrics),
                                         {"--fingerprint", options.fingerprint},
                                         {"--trace", options.trace}})
          if (!path.empty() && !RunFolder::holds(run_dir, path)) check_writable(flag, path);
        folder_ = std::make_unique<RunFolder>(run_dir, resume_.reuses_folder);
        folder_->write("config.yaml", resolved_yaml(trainer.config()));
        if (plan_) folder_->write("plan.yaml", to_yaml(*plan_));
        fresh_recorder_folder(run_dir);
      }
    });
    process_.together([&] { open_log(run_dir); });
    process_.set_run_folder(run_dir);
    log_.info(kernels);
    for (const std::string& note : loaded.notes) log_.info(note);
    log_.info(stage_table(trainer_));
    log_.info(concat("schedule ", trainer_.config().pipeline.schedule, ", ", trainer_.micro_batches(),
                     " micro-batches, ", trainer_.partition().stages(), " stages, ",
                     trainer_.layout().rank_of_row.size(), " workers on ", process_.size(), " rank(s), run folder ",
                     run_dir));
    if (process_.is_root())  // every rank has the same
      for (const std::string& warning : trainer_.warnings()) log_.warn(warning);
    log_resume();
    const std::string shared = shared_cores(process_, trainer_);
    if (!shared.empty() && process_.is_root()) log_.warn(shared);
    if (shared.empty() && trainer_.layout().rank_of_row.front() == trainer_.layout().here)
      rebalancer_ = std::make_unique<Rebalancer>(trainer_, *reporter_, expected_us, options_.replan, log_);
  }

  int run() {
    FitOptions fit;
    fit.observer = reporter_.get();
    if (rebalancer_) {
      fit.observer = rebalancer_.get();
      fit.replan = &rebalancer_->wanted();
    }
    fit.signalled = &StopSignals::asked();
    fit.checkpoints = checkpoints_of(trainer_.config().run_dir);
    fit.log = log_;
    fit.record = record_;
    fit.recorder_folder = recorder_folder(trainer_.config().run_dir);
    TimelineGatherer gatherer(process_);
    const JobOutcome outcome = trainer_.fit(fit);
    const auto hashes = gather_fingerprint(process_, trainer_.graph(), outcome);
    if (process_.is_root()) write_fingerprint(hashes);
    write_timeline(gatherer.gather(trainer_, outcome, record_));
    for (const std::string& found : process_.all_gather(outcome.not_finite))
      if (not_finite_.empty()) not_finite_ = found;
    return finish();
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
    Log::Options log;
    log.file = run_dir + (process_.is_root() ? "/log.txt" : concat("/log.rank", process_.rank(), ".txt"));
    log.console_info = process_.is_root();
    log.console = process_.console();
    log_ = Log(log);
    ReporterOptions reporter;
    reporter.steps = trainer_.config().train.steps;
    reporter.log_every = trainer_.config().train.log_every;
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

  void write_timeline(std::optional<RunTimeline> timeline) const {
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

  /// Says how the job ended, and leaves word of it for `lockstep why`.
  int finish() const {
    const JobEnd end = ending();
    const std::string doubt = end.code == 0 ? doubt_of_losses(reporter_->losses(), trainer_.config()) : "";
    if (process_.is_root() && !doubt.empty()) log_.warn(doubt);
    if (end.code == 0 || !process_.is_root())
      log_.info(end.message);  // on the console of one rank, in the log files of all
    else
      log_.error(end.message);
    if (process_.is_root()) remember(trainer_.config().run_dir, end);
    return end.code;
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

/// `--change KEY=VALUE` sets the key as --set does.
void set_changes(const TrainOptions& options, ConfigSource& source, ResumeRules& rules) {
  if (!options.changes.empty() && options.resume.empty())
    throw UserError(concat("--change: got ", options.changes.front(),
                           " without --resume, expected a checkpoint to go on from; else set keys with --set"));
  for (const std::string& change : options.changes) {
    const std::size_t equals = change.find('=');
    if (equals != std::string::npos) source.overrides.push_back("--change " + change);
    rules.changes.push_back(change.substr(0, equals));
  }
}

int train(const TrainOptions& options) {
  Process process;
  try {
    std::unique_ptr<Trainer> trainer;
    std::string kernels;
    ResumePoint resume;
    LoadedConfig loaded;
    ResumeRules rules;
    process.together([&] {
      ConfigSource source = options.source;
      set_changes(options, source, rules);
      loaded = source.load();
      kernels = resolve_kernels(loaded.config);
    });
    resolve_partition(process, options.source.path, loaded);
    process.together([&] { trainer = make_trainer(loaded, process.ranks()); });
    process.together([&] { resume = choose_checkpoint(process, options.resume, trainer->config().run_dir); });
    process.together([&] {
      if (!resume.checkpoint.empty()) trainer->resume(resume.checkpoint, rules);
    });
    process.compare(*trainer);
    if (options.dry_run) return dry_run(process, *trainer, trainer->programs(), loaded);
    if (options.replan && !trainer->config().checkpoint.on())
      process.together([] {
        throw UserError(
            "--replan: got checkpoint.every: never, expected a number of steps or minutes; layers move at a "
            "checkpoint");
      });
    std::vector<double> expected = expected_us(loaded);
    process.stop_when_asked([&process, config = trainer->config()](int) {
      if (process.is_root()) announce_stop(config);
    });
    while (true) {
      process.connect(*trainer);
      std::optional<Rebalanced> moved;
      {
        TrainRun run(process, *trainer, options, resume, loaded, kernels, expected);
        const int code = run.run();
        moved = run.moved();
        if (!moved) return code;
      }
      take_cuts(loaded, moved->layers_per_stage);
      expected = moved->expected_us;
      process.together([&] { trainer = make_trainer(loaded, process.ranks()); });
      process.together([&] { resume = choose_checkpoint(process, "auto", trainer->config().run_dir); });
      process.together([&] { trainer->resume(resume.checkpoint); });
      process.compare(*trainer);
    }
  } catch (const AlreadyReported&) {
    throw;
  } catch (const std::exception& error) {
    process.fail(error);
  }
}

}  // namespace

void add_train(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb = app.add_subcommand("train", "Train a model, in this process or on the ranks of an mpirun");
  auto options = std::make_shared<TrainOptions>();
  options->source.add_flags(*verb);
  options->source.add_plan_flag(*verb);
  verb->add_option("--metrics", options->metrics, "JSON lines, one per step; default: metrics.jsonl in the run folder")
      ->type_name("FILE");
  verb->add_option("--fingerprint", options->fingerprint, "Write a 64-bit hash per parameter, to compare runs")
      ->type_name("FILE");
  verb->add_option("--resume", options->resume,
                   "Go on from a checkpoint folder, or from the newest good one of the run folder (auto), which starts "
                   "from the beginning when there is none yet")
      ->type_name("auto|DIR");
  verb->add_option(
          "--change", options->changes,
          "With --resume: go on with another value than the checkpoint's, knowingly (repeatable); KEY alone: with "
          "what the config has there; data: with other data")
      ->take_all()
      ->type_name("KEY[=VALUE]");
  verb->add_option("--trace", options->trace, "Write a Chrome trace of a few steps, for ui.perfetto.dev")
      ->type_name("FILE");
  verb->add_option("--trace-steps", options->trace_steps,
                   "Which steps the trace and the run folder's timeline.json show; default: up to 3 after warming up")
      ->type_name("FIRST-LAST");
  verb->add_flag(
      "--replan", options->replan,
      "When a worker is persistently slower than the others, move layers away from it at a checkpoint; no bit "
      "changes");
  verb->add_flag("--dry-run", options->dry_run, "Print stages, memory and timeline; train and write nothing");
  verb->footer(
      "Examples:\n"
      "  lockstep train configs/quickstart.yaml\n"
      "  mpirun -n 2 lockstep train configs/quickstart.yaml --set run_dir=runs/two-ranks\n"
      "  lockstep train configs/quickstart.yaml --set checkpoint.every=50 --resume auto\n"
      "  lockstep train configs/quickstart.yaml --resume auto --change train.optimizer.lr=0.0001\n"
      "  lockstep train configs/quickstart.yaml --plan plan.yaml");
  verb->callback([options, &command] { command = [options] { return train(*options); }; });
}

}  // namespace lockstep
