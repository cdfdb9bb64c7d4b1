// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer.hpp"

#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <numeric>

#include "partitioner/cuts.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/training/director.hpp"
#include "runtime/training/environment.hpp"
#include "runtime/training/loss.hpp"
#include "runtime/training/optimizer.hpp"

namespace lockstep {
namespace {

std::vector<std::string> names_of(const std::vector<LayerSpec>& layers) {
  std::vector<std::string> names;
  for (const LayerSpec& layer : layers) names.push_back(layer.name);
  return names;
}

std::vector<int> cut_before(const ModelGraph& graph, const Config& config) {
  const std::vector<std::string> names = names_of(graph.layers);
  std::vector<int> counts;
  int start = 0;
  for (const std::string& cut : config.pipeline.partition.cut_before) {
    const auto found = std::find(names.begin(), names.end(), cut);
    const Section partition = config.root.section("pipeline").section("partition");
    if (found == names.end())
      throw partition.error(
          "cut_before", concat("the model has no layer '", cut, "'; it has: ", join(names), did_you_mean(cut, names)));
    const int layer = static_cast<int>(found - names.begin());
    if (layer <= start)
      throw partition.error("cut_before",
                            concat("layer '", cut, "' is layer ", layer, ", but the stage before it starts at ", start,
                                   "; name the first layer of every stage but the first, in order"));
    counts.push_back(layer - start);
    start = layer;
  }
  counts.push_back(graph.layer_count() - start);
  return counts;
}

std::unique_ptr<Loss> loss_of(const Config& config) {
  try {
    return make_loss(config.train.loss);
  } catch (const UserError& error) {
    throw config.root.section("train").error("loss", error.what());
  }
}

/// Whether this LibTorch and this machine have the device.
at::Device device_of(const std::string& name, const Section& workers) {
  const at::Device device(name);
  if (device.is_cpu()) return device;
  const bool known = c10::impl::hasDeviceGuardImpl(device.type());
  const int count = known ? c10::impl::getDeviceGuardImpl(device.type())->deviceCount() : 0;
  if (std::max<int>(device.index(), 0) >= count)
    throw workers.error("devices",
                        concat("got ", name, ", but ",
                               known ? concat("this machine has ", count) : std::string("this LibTorch knows no"), " ",
                               c10::DeviceTypeName(device.type(), /*lower_case=*/true), " devices; use [cpu]"));
  return device;
}

}  // namespace

std::vector<RankId> spread_workers(int workers, int ranks, const std::vector<int>& per_rank, const Section& section) {
  std::vector<int> counts = per_rank;
  if (counts.empty())
    for (int r = 0; r < ranks; ++r) counts.push_back(workers / ranks + (r < workers % ranks ? 1 : 0));
  if (counts.size() == 1) counts.assign(static_cast<std::size_t>(ranks), per_rank.empty() ? counts[0] : per_rank[0]);
  const int total = std::accumulate(counts.begin(), counts.end(), 0);
  const bool idle = std::any_of(counts.begin(), counts.end(), [](int count) { return count < 1; });
  if (static_cast<int>(counts.size()) != ranks || total != workers || idle)
    throw section.error("per_rank", concat("[", join(counts), "] places ", total, " workers on ", counts.size(),
                                           " ranks, but the job has ", workers, " workers (one per stage) and ", ranks,
                                           " ranks, and every rank needs at least one; start ", workers,
                                           " ranks or fewer, or change pipeline.stages"));
  std::vector<RankId> rank_of_worker;
  for (int rank = 0; rank < ranks; ++rank) rank_of_worker.insert(rank_of_worker.end(), counts[rank], RankId(rank));
  return rank_of_worker;
}

Trainer::Trainer(const Model& model, DataSplits data, Config config, Ranks ranks)
    : config_(std::move(config)), data_(std::move(data)), ranks_(ranks), loss_(loss_of(config_)) {
  const TrainConfig& train = config_.train;
  if (config_.pipeline.schedule.empty()) config_.pipeline.schedule = "gpipe";
  check_schedule_name();
  graph_ = describe_model(model, data_.train->entries(slice_rows(train.batch, train.micro_batches, train.batch)[0]),
                          *loss_, train.freeze);
  std::vector<std::string> parameter_names;
  for (const ParameterInfo& parameter : graph_.parameters) parameter_names.push_back(parameter.name);
  check_patterns(train, parameter_names, config_.root.section("train"));
  check_evaluation(model);
  partition_ = cut(graph_, layers_per_stage());

  const int workers = partition_.stages();
  const Section section = config_.root.section("workers");
  const std::vector<RankId> rank_of_worker = spread_workers(workers, ranks_.count, config_.workers.per_rank, section);
  std::vector<std::string> device_names = config_.workers.devices;
  if (device_names.empty()) device_names = {"cpu"};
  layout_.here = ranks_.here;
  for (int row = 0; row < workers; ++row) {
    const int worker = config_.pipeline.placement.empty() ? row : config_.pipeline.placement[row];
    layout_.rank_of_row.push_back(rank_of_worker[worker]);
    devices_.push_back(device_of(device_names[worker % device_names.size()], section));
  }
  programs_ = std::make_unique<Programs>(
      [name = config_.pipeline.schedule, workers](int micro_batches) {
        return make_schedule(name, {workers, /*virtual_stages=*/1, micro_batches});
      },
      partition_.topology, train.clip_grad_norm > 0);
  programs_->get(Mode::train, train.micro_batches);
}

Trainer::~Trainer() = default;

void Trainer::check_schedule_name() const {
  std::vector<std::string> names;
  for (const ScheduleGenerator& generator : schedule_generators()) names.push_back(generator.name);
  const std::string& name = config_.pipeline.schedule;
  if (std::find(names.begin(), names.end(), name) == names.end())
    throw config_.root.section("pipeline")
        .error("schedule",
               concat("there is no schedule '", name, "'; there are: ", join(names), did_you_mean(name, names)));
}

void Trainer::check_evaluation(const Model& model) const {
  const TrainConfig& train = config_.train;
  if (train.eval_every == 0) return;
  if (!data_.eval)
    throw config_.root.section("train").error(
        "eval_every", concat("got ", train.eval_every, ", but the data has no evaluation set; give it one, or leave ",
                             "eval_every out"));
  describe_model(model, data_.eval->entries(1), *loss_, train.freeze);
}

std::vector<int> Trainer::layers_per_stage() const {
  const PipelineConfig& pipeline = config_.pipeline;
  const Section section = config_.root.section("pipeline");
  const int layers = graph_.layer_count();
  if (!pipeline.partition.counts.empty()) {
    const int total = std::accumulate(pipeline.partition.counts.begin(), pipeline.partition.counts.end(), 0);
    if (total != layers)
      throw section.error("partition", concat("got ", total, " layers in [", join(pipeline.partition.counts),
                                              "], the model has ", layers, ": ", join(names_of(graph_.layers))));
    return pipeline.partition.counts;
  }
  if (!pipeline.partition.cut_before.empty()) return cut_before(graph_, config_);
  if (pipeline.stages > layers)
    throw section.error("stages", concat("got ", pipeline.stages, ", the model has ", layers,
                                         " layers and every stage needs at least one; use at most ", layers));
  std::vector<double> weights;
  for (int layer = 0; layer < layers; ++layer)
    weights.push_back(pipeline.partition.by == "layers" ? 1.0 : static_cast<double>(graph_.elements_of_layer(layer)));
  return balanced_cut(weights, pipeline.stages);
}

std::string Trainer::agreement() const {
  std::string text = resolved_yaml(config_);
  for (const auto& [key, value] : environment_of(config_).entries) text += concat(key, ": ", value, "\n");
  text += concat("library: ", library_hash(), "\n");
  text += concat("first layers: ", join(partition_.first_layer), "\nranks of rows: ", join(layout_.rank_of_row), "\n");
  const Program& program = programs_->get(Mode::train, config_.train.micro_batches);
  for (const auto& row : program.rows) {
    for (const Instruction& instruction : row) text += describe(program, instruction) + "; ";
    text += "\n";
  }
  return text;
}

std::vector<Cpus> Trainer::bound_cpus(const Log& log) const {
  if (config_.workers.bind == "none") return {};
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

JobOutcome Trainer::fit(const FitOptions& options) {
  at::set_num_threads(config_.workers.threads);
  TrainingDirector director(config_, data_, *loss_);
  JobSpec spec{graph_, partition_, *loss_, *programs_, layout_};
  spec.stage.seed = config_.seed;
  spec.stage.precision = config_.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  spec.stage.check_finite = config_.train.stop_on_nan;
  spec.devices = devices_;
  spec.threads = config_.workers.threads;
  spec.cpus = bound_cpus(options.log);
  spec.clip_grad_norm = config_.train.clip_grad_norm;
  spec.make_updater = [this] { return std::make_unique<Optimizer>(config_.train.optimizer); };
  spec.wait_limit = std::chrono::seconds(config_.comm.watchdog_s);
  spec.director = &director;
  spec.observer = options.observer;
  spec.signalled = options.signalled;
  spec.record_hashes = options.record_hashes;
  spec.record = options.record;
  spec.remote = ranks_.remote;
  spec.log = options.log;
  return run_job(spec);
}

}  // namespace lockstep
