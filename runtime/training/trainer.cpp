// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer.hpp"

#include "runtime/base/launcher.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"
#include "runtime/schedule/measured.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/model_record.hpp"

namespace lockstep {
namespace {

Ranks this_process_alone() {
  if (const int processes = launched_processes(); processes > 1)
    throw UserError(concat("a trainer without ranks in one of ", processes,
                           " processes of a launcher, of which each would train by itself; give it process.ranks() "
                           "inside lockstep::run_ranks (runtime/session/process.hpp)"));
  return {};
}

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

/// adapter_config.json of an adapted model; empty: it is none.
std::string adapter_config_of(const Assembly& assembly, const InitialWeights* initial) {
  if (!assembly.model.adapter) return "";
  std::vector<std::string> modules, saved;
  WeightLayout layout = WeightLayout::out_in;
  std::map<std::string, WeightLayout> layouts;  // by module
  for (const ParameterInfo& parameter : assembly.graph.parameters) {
    const std::string module = module_of(parameter.name);
    if (parameter.linear) layouts[module] = *parameter.linear;
    const bool itself = is_named(module, assembly.model.adapter->modules_to_save);
    if (itself && (saved.empty() || saved.back() != module)) saved.push_back(module);
    if (!parameter.name.ends_with(LowRank::first_of(""))) continue;
    modules.push_back(module_of(module));  // of MODULE.lora_A.weight
    layout = layouts.at(modules.back());
  }
  return adapter_config(*assembly.model.adapter, initial ? initial->base : "", modules, saved, layout,
                        assembly.model.hub_config);
}

/// Null where nothing is saved.
std::unique_ptr<Publisher> make_publisher(const Assembly& assembly, const Start& start, const RunOptions& options,
                                          bool stop_on_nan) {
  const Config& config = assembly.config;
  const bool saves = config.checkpoint.on() || config.train.stop_after > 0;
  if (options.checkpoints.empty() || !saves || !assembly.feeds()) return nullptr;
  PublisherOptions publisher;
  publisher.checkpoints = options.checkpoints;
  publisher.resume_from = start.checkpoint;
  publisher.rows = assembly.saving_rows();
  publisher.servers = assembly.partition.topology.servers;
  publisher.keep = config.checkpoint.keep;
  if (config.checkpoint.keeps_best())
    publisher.best = watched_of(assembly, config.checkpoint.best, config.root.section("checkpoint"), "best");
  publisher.stop_on_nan = stop_on_nan;
  publisher.patience = patience_of(config.comm);
  publisher.hub_config = assembly.model.hub_config;
  publisher.torch_dtype = config.train.precision == Precision::fp64 ? "float64" : "float32";
  publisher.adapter_config = adapter_config_of(assembly, start.initial.get());
  publisher.companions = companion_files(start.checkpoint.empty() ? config.train.init_from : start.checkpoint);
  publisher.companions[kModelFile] = model_record(assembly);
  publisher.state = start.state;
  if (!start.state.data) publisher.state.data = record_of(assembly.data);
  publisher.log = options.log;
  return std::make_unique<Publisher>(std::move(publisher));
}

RunStart without_training(const Start& start) {
  return {.checkpoint = start.checkpoint, .initial = start.initial, .averaged = start.averaged, .trains = false};
}

/// State that is carried to samples that do not follow.
void look_at_states(const Assembly& assembly, const Log& log) {
  const SampleOrder order = assembly.data.sampling.order;
  if (order == SampleOrder::streams) return;
  for (const BufferInfo& buffer : assembly.graph.buffers)
    if (buffer.is_state)
      return log.warn(concat(layer_text(assembly.graph.layers[static_cast<std::size_t>(buffer.layer)]),
                             " carries state from batch to batch, but data.sampling.order is ", to_string(order),
                             ": a row's state goes on to a sample that does not follow; set it to streams"));
}

}  // namespace

Trainer::Trainer(Assembly assembly) : assembly_(std::move(assembly)), start_(fresh_start(assembly_)) {}

Trainer::Trainer(Model model, DataSplits data, Config config, const Ranks& ranks)
    : Trainer(assemble(std::move(model), std::move(data), std::move(config), ranks)) {}

Trainer::Trainer(Model model, DataSplits data, Config config)
    : Trainer(std::move(model), std::move(data), std::move(config), this_process_alone()) {}

void Trainer::find_initial_weights() {
  if (start_.checkpoint.empty() && !start_.initial) start_ = initial_start(assembly_);
}

void Trainer::resume(const std::string& checkpoint, const ResumeRules& rules) {
  start_ = lockstep::resume(assembly_, checkpoint, rules);
}

std::string Trainer::agreement() const {
  std::string text = lockstep::agreement(assembly_);
  TrainerState start = start_.state;
  start.changes.clear();  // data that is none of a file is looked at by one rank
  std::erase_if(start.environment.entries, [](const auto& entry) { return entry.first == kCard; });
  if (!start_.checkpoint.empty()) text += concat("resumed from step ", start.step, ": ", start.to_json());
  return text;
}

void Trainer::measure(const RunOptions& options, const TrainingOrders& orders) {
  constexpr std::int64_t kSteps = 3;
  Meter meter(assembly_.training_program());
  RunOptions few;
  few.observer = &meter;
  few.signalled = options.signalled;
  few.wrap_channel = options.wrap_channel;
  few.log = options.log;
  TrainingOrders first = orders;
  first.last_step = std::min(kSteps, orders.last_step > 0 ? orders.last_step : assembly_.config.train.steps);
  first.evaluates = false;
  first.replan = nullptr;
  {
    BatchReader reader(assembly_);  // reads ahead until it goes, which is before the assembly changes
    TrainingDirector director(assembly_, reader, fresh_start(assembly_).state, first, nullptr, options.signalled);
    run_assembly(assembly_, director, reader, {.check_finite = *first.stop_on_nan}, few);
  }
  if (meter.costs().steps() == 0) {
    if (meter.stop() != StopReason::signal)  // else nothing is trained with it
      options.log.warn("schedule auto: too few steps to measure; all stages count the same");
    return;
  }
  // Every rank was told the same results, so every rank chooses the same.
  std::string reason;
  assembly_ = with_costs(std::move(assembly_), meter.costs().costs(), reason);
  options.log.info(reason);
}

JobOutcome Trainer::fit(const RunOptions& options, const TrainingOrders& given) {
  TrainingOrders orders = given;
  orders.stop_on_nan = given.stop_on_nan.value_or(assembly_.config.train.stop_on_nan);
  find_initial_weights();
  if (assembly_.feeds()) look_at_states(assembly_, options.log);
  if (assembly_.wants_costs()) measure(options, orders);
  const std::unique_ptr<Publisher> publisher = make_publisher(assembly_, start_, options, *orders.stop_on_nan);
  BatchReader reader(assembly_);
  TrainingDirector director(assembly_, reader, start_.state, orders, publisher.get(), options.signalled, options.log);
  return run_assembly(assembly_, director, reader,
                      {.checkpoint = start_.checkpoint,
                       .initial = start_.initial,
                       .optimizer_after = start_.state.optimizer_after,
                       .optimizer_restarts = start_.optimizer_restarts(),
                       .steps_before = start_.state.step,
                       .check_finite = *orders.stop_on_nan},
                      options);
}

std::vector<AnswerForm> Trainer::prepare_answers(const AnswerOptions& options,
                                                 const Table<ActivationKind>& activations) {
  return with_answers(assembly_, options, activations);
}

JobOutcome Trainer::answer(const TakeAnswers& take, const RunOptions& options, const WaitForMore& more) {
  BatchReader reader(assembly_);
  AnswerDirector director(assembly_, reader, start_.state.step, take, more, options.signalled);
  return run_assembly(assembly_, director, reader, without_training(start_), options);
}

JobOutcome Trainer::evaluate(const RunOptions& options) {
  check_evaluation(assembly_);
  BatchReader reader(assembly_);
  EvaluationDirector director(assembly_, reader, start_.state.step, options.signalled);
  return run_assembly(assembly_, director, reader, without_training(start_), options);
}

}  // namespace lockstep
