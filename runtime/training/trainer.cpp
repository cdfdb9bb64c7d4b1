// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/base/launcher.hpp"
#include "runtime/config/doubts.hpp"
#include "runtime/schedule/measured.hpp"
#include "runtime/training/checkpointing.hpp"
#include "runtime/training/data_checks.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/environment.hpp"
#include "runtime/training/losses.hpp"
#include "runtime/training/optimizer.hpp"
#include "runtime/training/placement.hpp"
#include "runtime/training/precision.hpp"
#include "runtime/training/schedule_choice.hpp"
#include "runtime/training/training_director.hpp"

namespace lockstep {
namespace {

Losses losses_of(const Model& model, const Config& config) {
  Losses losses;
  for (const Head& head : model.heads) {
    if (!head.loss.empty()) {
      losses.push_back(make_loss(head.loss));
      continue;
    }
    try {
      losses.push_back(make_loss(config.train.loss));
    } catch (const UserError& error) {
      throw config.root.section("train").error("loss", error.what());
    }
  }
  return losses;
}

/// How long the end of a failed job waits for a save that stands still.
std::chrono::milliseconds patience_of(const CommConfig& comm) {
  return std::chrono::seconds(std::min(comm.watchdog_s, comm.save_s));
}

}  // namespace

Trainer::Trainer(Model model, DataSplits data, Config config, Ranks ranks)
    : config_(std::move(config)),
      model_(std::move(model)),
      data_(std::move(data)),
      ranks_(ranks),
      losses_(losses_of(model_, config_)) {
  const TrainConfig& train = config_.train;
  check_config(config_);
  check_datasets(data_);
  graph_ = describe_model(model_, data_.train->entries(slice_rows(train.batch, train.micro_batches, train.batch)[0]),
                          losses_, train.freeze);
  std::vector<std::string> parameter_names;
  for (const ParameterInfo& parameter : graph_.parameters) parameter_names.push_back(parameter.name);
  check_patterns(train, parameter_names, config_.root.section("train"));
  check_evaluation();
  TargetChecks(graph_, losses_).check_all(*data_.train);
  check_slices();
  partition_ = cut(graph_, layers_per_stage(graph_, config_));
  recompute_ = recomputed_layers(graph_, config_);

  if (config_.pipeline.costs.given) costs_of(config_, partition_);  // finds mistakes now
  measures_ = config_.pipeline.schedule == "auto" && !config_.pipeline.costs.given;
  ScheduleChoice choice = choose_schedule(config_, partition_);
  warnings_ = data_.notes;
  for (std::string& doubt : doubts_of(config_, data_.train->size())) warnings_.push_back(std::move(doubt));
  if (!choice.warning.empty()) warnings_.push_back(choice.warning);
  place(choice.schedule.workers());
  take(std::move(choice));
  start_ = fresh_state();
}

namespace {

Ranks this_process_alone() {
  if (const int processes = launched_processes(); processes > 1)
    throw UserError(concat("a trainer without ranks in one of ", processes,
                           " processes of a launcher, of which each would train by itself; give it process.ranks() "
                           "inside lockstep::run_ranks (runtime/session/process.hpp)"));
  return {};
}

}  // namespace

Trainer::Trainer(Model model, DataSplits data, Config config)
    : Trainer(std::move(model), std::move(data), std::move(config), this_process_alone()) {}

Trainer::~Trainer() = default;

void Trainer::take(ScheduleChoice choice) {
  const TrainConfig& train = config_.train;
  LowerOptions options;
  options.clip = train.clip_grad_norm > 0;
  options.post_validation = train.post_validation;
  options.recompute = config_.pipeline.recompute;
  programs_ = std::make_unique<Programs>(std::move(choice.schedule), partition_.topology, options, choice.order);
  check_programs();
}

namespace {

class Meter : public Observer {
 public:
  explicit Meter(const Program& program) : costs_(program) {}
  void on_result(const StepResult& result) override {
    if (result.step > 1) costs_.add(result);  // the first step pays for warming up
  }
  void on_stop(StopReason reason) override { stop_ = reason; }
  const CostMeter& costs() const { return costs_; }
  StopReason stop() const { return stop_; }

 private:
  CostMeter costs_;
  StopReason stop_ = StopReason::none;
};

}  // namespace

void Trainer::measure(const FitOptions& options) {
  constexpr std::int64_t kSteps = 3;
  Meter meter(programs_->get(Mode::train, config_.train.micro_batches));
  const Config config = config_;
  const TrainerState start = std::exchange(start_, fresh_state());
  const std::string resumed_from = std::exchange(resumed_from_, "");
  config_.train.steps = std::min(kSteps, config.train.steps);
  config_.train.eval_every = 0;
  FitOptions few;
  few.observer = &meter;
  few.signalled = options.signalled;
  few.log = options.log;
  fit(few);
  config_ = config;
  start_ = start;
  resumed_from_ = resumed_from;
  if (meter.costs().steps() == 0) {
    if (meter.stop() != StopReason::signal)  // else nothing is trained with it
      options.log.warn("schedule auto: too few steps to measure; all stages count the same");
    return;
  }
  // Every rank was told the same results, so every rank chooses the same.
  const Costs costs = meter.costs().costs();
  ScheduleChoice choice = choose_schedule(config_, partition_, &costs);
  options.log.info(choice.reason);
  take(std::move(choice));
}

void Trainer::place(int workers) {
  const std::vector<int>& placement = config_.pipeline.placement;
  std::vector<int> sorted = placement, identity(static_cast<std::size_t>(workers));
  std::iota(identity.begin(), identity.end(), 0);
  std::sort(sorted.begin(), sorted.end());
  if (!placement.empty() && sorted != identity)  // of a schedule file, whose number of workers is known only now
    throw config_.root.section("pipeline")
        .error("placement", concat("got [", join(placement), "], expected each of 0 to ", workers - 1,
                                   " once: a worker for each of the ", workers, " rows"));
  const Section section = config_.root.section("workers");
  const std::vector<RankId> rank_of_worker = spread_workers(workers, ranks_.count, config_.workers.per_rank, section);
  const std::vector<std::string>& device_names = config_.workers.devices;
  layout_.here = ranks_.here;
  for (int row = 0; row < workers; ++row) {
    const int worker = config_.pipeline.placement.empty() ? row : config_.pipeline.placement[row];
    layout_.rank_of_row.push_back(rank_of_worker[worker]);
    devices_.push_back(device_of(device_names[worker % device_names.size()], section));
  }
}

/// Every program that the run will come to, so that one that cannot run is found now.
void Trainer::check_programs() const {
  const TrainConfig& train = config_.train;
  const auto check = [this](Mode mode, std::int64_t samples, std::int64_t batch) {
    const int micro_batches = static_cast<int>(std::min<std::int64_t>(config_.train.micro_batches, batch));
    for (const std::int64_t rows : {std::min(samples, batch), samples % batch})
      if (rows > 0) programs_->get(mode, static_cast<int>(slice_rows(batch, micro_batches, rows).size()));
  };
  programs_->get(Mode::train, train.micro_batches);
  check(Mode::train, data_.train->size(), train.batch);
  if (train.eval_every > 0)
    check(Mode::evaluate, data_.eval->size(), train.eval_batch > 0 ? train.eval_batch : train.batch);
}

void Trainer::check_evaluation() const {
  const TrainConfig& train = config_.train;
  if (train.eval_every == 0) return;
  if (!data_.eval)
    throw config_.root.section("train").error(
        "eval_every", concat("got ", train.eval_every, ", but the data has no evaluation set; give it one, or leave ",
                             "eval_every out"));
  describe_model(model_, data_.eval->entries(1), losses_, train.freeze);
  TargetChecks(graph_, losses_).check_all(*data_.eval);
}

void Trainer::check_slices() const {
  const TrainConfig& train = config_.train;
  const std::int64_t last = data_.train->size() % train.batch;  // rows of the short batch of an epoch
  for (const std::int64_t rows : {std::min(train.batch, data_.train->size()), last}) {
    if (rows == 0) continue;
    const std::int64_t least = slice_rows(train.batch, train.micro_batches, rows).back();
    if (least >= graph_.least_rows) continue;
    const LayerSpec& layer = graph_.layers[graph_.least_rows_layer];
    throw config_.root.section("train").error(
        "micro_batches", concat("got ", train.micro_batches, ": a batch of ", rows, " samples",
                                rows == last ? " (the last of an epoch)" : "", " then has a micro-batch of ", least,
                                ", but layer '", layer.name, "' (", layer.layer->type(),
                                ") expects more than 1 value per channel when training: at least ", graph_.least_rows,
                                " samples; use fewer micro-batches, or a batch that leaves no such remainder"));
  }
}

std::string Trainer::agreement() const {
  std::string text = resolved_yaml(config_);
  for (const auto& [key, value] : environment_of(config_).entries) text += concat(key, ": ", value, "\n");
  text += concat("library: ", library_hash(), "\n");
  TrainerState start = start_;
  start.changes.clear();  // data that is none of a file is looked at by one rank
  if (!resumed_from_.empty()) text += concat("resumed from step ", start.step, ": ", start.to_json());
  text += concat("first layers: ", join(partition_.first_layer), "\nranks of rows: ", join(layout_.rank_of_row), "\n");
  const Program& program = programs_->get(Mode::train, config_.train.micro_batches);
  for (const auto& row : program.rows) {
    for (const Instruction& instruction : row) text += describe(program, instruction) + "; ";
    text += "\n";
  }
  return text;
}

std::vector<Cpus> Trainer::bound_cpus(const Log& log) const {
  if (config_.workers.bind == Bind::none) return {};
  const auto here = std::count(layout_.rank_of_row.begin(), layout_.rank_of_row.end(), layout_.here);
  const Cpus allowed = allowed_cpus();
  const int workers = static_cast<int>(here), threads = config_.workers.threads;
  std::vector<Cpus> cpus = cpus_of_workers(allowed, ranks_.workers_before, workers, threads);
  if (cpus.empty())
    log.warn(concat("workers.bind: not bound: ", ranks_.workers_before + workers, " workers with ", threads,
                    " thread(s) each do not fit on the ", allowed.size(), " CPUs that this process may use"));
  for (std::size_t i = 0; i < cpus.size(); ++i)
    log.debug(concat("worker ", i, " of this process is bound to CPU ", join(cpus[i])));
  return cpus;
}

TrainerState Trainer::fresh_state() const {
  TrainerState state;
  state.samples = data_.train->size();
  state.numerics = numerics_of(config_);
  if (!data_.arithmetic.empty()) state.numerics.emplace_back(kDataArithmetic, data_.arithmetic);
  state.environment = environment_of(config_);
  state.data = data_.record;
  return state;
}

std::unique_ptr<Publisher> Trainer::make_publisher(const FitOptions& options) const {
  const bool saves = config_.checkpoint.on() || config_.train.stop_after > 0;
  if (options.checkpoints.empty() || !saves || !feeds()) return nullptr;
  PublisherOptions publisher;
  publisher.checkpoints = options.checkpoints;
  publisher.resume_from = resumed_from_;
  publisher.rows = static_cast<int>(layout_.rank_of_row.size());
  publisher.keep = config_.checkpoint.keep;
  publisher.keep_best = config_.checkpoint.best != KeepBest::none;
  publisher.stop_on_nan = config_.train.stop_on_nan;
  publisher.patience = patience_of(config_.comm);
  publisher.hub_config = model_.hub_config;
  publisher.state = start_;
  if (!start_.data) publisher.state.data = record_of(data_);
  publisher.log = options.log;
  return std::make_unique<Publisher>(std::move(publisher));
}

JobOutcome Trainer::evaluate(const FitOptions& options) {
  // A job whose last step is done has the evaluation that follows it left.
  config_.train.steps = start_.step;
  config_.train.eval_every = 1;
  return fit(options);
}

JobOutcome Trainer::fit(const FitOptions& options) {
  if (std::exchange(measures_, false)) measure(options);
  at::set_num_threads(config_.workers.threads);
  const std::unique_ptr<Publisher> publisher = make_publisher(options);
  TrainingDirector director(config_, data_, graph_, losses_, start_, publisher.get(), options.replan,
                            options.signalled);
  JobSpec spec{graph_, partition_, losses_, *programs_, layout_};
  spec.stage.seed = config_.seed;
  spec.stage.precision = dtype_of(config_.train.precision);
  spec.initialise = resumed_from_.empty();
  spec.stage.check_finite = config_.train.stop_on_nan;
  spec.stage.recompute = recompute_;
  spec.devices = devices_;
  spec.threads = config_.workers.threads;
  spec.cpus = bound_cpus(options.log);
  spec.clip_grad_norm = config_.train.clip_grad_norm;
  spec.make_updater = Optimizer::maker(config_.train.optimizer);
  ShardOptions shard;
  shard.checkpoints = options.checkpoints;
  shard.resume_from = resumed_from_;
  shard.background = config_.checkpoint.background;
  // A copy counts like every tensor: under a limit that was set for training, auto makes none.
  if (shard.background == Background::automatic && config_.workers.memory_limit > 0)
    shard.background = Background::never;
  shard.patience = patience_of(config_.comm);
  shard.rows = static_cast<int>(layout_.rank_of_row.size());
  shard.workers_here =
      static_cast<int>(std::count(layout_.rank_of_row.begin(), layout_.rank_of_row.end(), layout_.here));
  spec.make_keeper = [shard, log = options.log](int row) {
    ShardOptions options_of_row = shard;
    options_of_row.row = row;
    options_of_row.log = log.named(concat("worker ", row));
    return std::make_unique<ShardKeeper>(options_of_row);
  };
  spec.wait_limit = std::chrono::seconds(config_.comm.watchdog_s);
  spec.startup_limit = std::chrono::seconds(config_.comm.startup_s);
  spec.save_limit = std::chrono::seconds(config_.comm.save_s);
  spec.memory_limit = config_.workers.memory_limit;
  spec.recorder_folder = options.recorder_folder;
  spec.director = &director;
  spec.observer = options.observer;
  spec.signalled = options.signalled;
  spec.record_hashes = options.record_hashes;
  spec.record = options.record;
  spec.remote = ranks_.remote;
  spec.wrap_channel = wrap_channel_;
  spec.log = options.log;
  return run_job(spec);
}

}  // namespace lockstep
