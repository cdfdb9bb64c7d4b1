// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/assembly.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "partitioner/replica_work.hpp"
#include "runtime/base/check.hpp"
#include "runtime/config/doubts.hpp"
#include "runtime/config/plugin_kind.hpp"
#include "runtime/device/card.hpp"
#include "runtime/training/answers.hpp"
#include "runtime/training/data_checks.hpp"
#include "runtime/training/placement.hpp"
#include "runtime/training/precision.hpp"
#include "runtime/training/schedule_choice.hpp"

namespace lockstep {
namespace {

/// By the entry that train's `key` names, with the options that it gives. `path`: of that name.
template <typename Kind>
auto made(const Table<Kind>& kinds, const PluginKind& named, const Config& config, const char* key,
          const std::string& path) {
  const Kind* kind = kinds.find(named.name);
  if (!kind) throw config.root.section("train").error(key, kinds.missing(named.name));
  const Section options = named.keys.without({"type"});
  auto made = made_by_plugin(named, path, [&] { return kind->make(options); });
  options.finish();
  return made;
}

Losses losses_of(const Model& model, const Config& config, const Table<LossKind>& kinds) {
  Losses losses;
  for (const Head& head : model.heads) {
    if (!head.loss.empty()) {
      losses.push_back(kinds.get(head.loss).make({}));
      continue;
    }
    losses.push_back(made(kinds, config.train.loss, config, "loss", "train.loss"));
  }
  return losses;
}

/// Of the heads whose loss the config names, or of all where the model names each.
Metrics metrics_of(const Assembly& assembly, const Table<MetricKind>& kinds) {
  const std::vector<Head>& heads = assembly.model.heads;
  const std::vector<PluginKind>& named = assembly.config.train.metrics;
  if (named.empty()) return {};
  const bool all = std::none_of(heads.begin(), heads.end(), [](const Head& head) { return head.loss.empty(); });
  Metrics metrics(heads.size());
  for (std::size_t head = 0; head < heads.size(); ++head)
    for (std::size_t i = 0; i < named.size() && (all || heads[head].loss.empty()); ++i)
      metrics[head].push_back(made(kinds, named[i], assembly.config, "metrics", concat("train.metrics[", i, "]")));
  return metrics;
}

/// Whether each is defined for what the model puts out and the data has.
void check_metrics(const Assembly& assembly) {
  for (std::size_t head = 0; head < assembly.metrics.size(); ++head) {
    const GraphHead& of = assembly.graph.heads[head];
    const Loss& loss = *assembly.losses[head];
    const EntrySpec& put_out = assembly.graph.values[static_cast<std::size_t>(of.output)].spec;
    const EntrySpec output = classes_last(put_out, loss.class_dimension());
    const EntrySpec targets =
        loss.for_metrics(put_out, assembly.graph.values[static_cast<std::size_t>(of.targets)].spec);
    for (const auto& metric : assembly.metrics[head]) {
      try {
        metric->check(output, targets);
      } catch (const ModelError& error) {
        throw assembly.config.root.section("train").error("metrics", concat(metric->name(), ": ", error.what()));
      }
    }
  }
}

/// Whether evaluations give what is watched.
void check_watched(const Assembly& assembly) {
  const Config& config = assembly.config;
  if (config.checkpoint.keeps_best())
    watched_of(assembly, config.checkpoint.best, config.root.section("checkpoint"), "best");
  if (const EarlyStoppingConfig& stopping = config.train.early_stopping; stopping.given)
    watched_of(assembly, stopping.watch, config.root.section("train").section("early_stopping"), "watch");
}

/// `workers`: of one replica.
void place(Assembly& assembly, int workers) {
  const Config& config = assembly.config;
  const std::vector<int>& placement = config.pipeline.placement;
  std::vector<int> sorted = placement, identity(static_cast<std::size_t>(workers));
  std::iota(identity.begin(), identity.end(), 0);
  std::sort(sorted.begin(), sorted.end());
  if (!placement.empty() && sorted != identity)  // of a schedule file, whose number of workers is known only now
    throw config.root.section("pipeline")
        .error("placement", concat("got [", join(placement), "], expected each of 0 to ", workers - 1,
                                   " once: a worker for each of the ", workers, " rows"));
  const Section section = config.root.section("workers");
  const int replicas = config.replicas.count;
  const RankSpread spread = spread_rows(config, workers * replicas, assembly.ranks.count, section);
  const std::vector<std::string>& device_names = config.workers.devices;
  assembly.layout.here = assembly.ranks.here;
  for (int row = 0; row < workers * replicas; ++row) {
    const int worker = worker_of(config, row / workers, row % workers, workers);
    assembly.layout.rank_of_row.push_back(spread.rank_of_worker[static_cast<std::size_t>(worker)]);
    assembly.devices.push_back(device_of(device_names[worker % device_names.size()], section));
  }
  for (const RankId rank : spread.rank_of_server) {
    assembly.layout.rank_of_row.push_back(rank);
    assembly.devices.emplace_back(at::kCPU);
  }
}

std::vector<int> memories_of(const Assembly& assembly) {
  std::vector<WorkerPlace> places;
  for (std::size_t row = 0; row < assembly.devices.size(); ++row)
    places.push_back({assembly.layout.rank_of_row[row].value(), /*host=*/0, assembly.devices[row].str()});
  return memories_of_weights(places, has_central_storage(assembly.config));
}

/// Samples of an epoch.
std::int64_t epoch_size(const Assembly& assembly) {
  return assembly.sampler().epoch_size();
}

/// Every program that a set of so many samples comes to, so that one that cannot run is found now.
void check_programs(const Assembly& assembly, Mode mode, std::int64_t samples, std::int64_t batch) {
  const int micro_batches = static_cast<int>(std::min<std::int64_t>(assembly.config.train.micro_batches, batch));
  for (const std::int64_t rows : {std::min(samples, batch), samples % batch})
    if (rows > 0) assembly.programs->get(mode, static_cast<int>(slice_rows(batch, micro_batches, rows).size()));
}

void check_evaluation_programs(const Assembly& assembly) {
  for (int set = 0; set < evaluation_sets(assembly.data); ++set)
    check_programs(assembly, Mode::evaluate, evaluation_set(assembly.data, set).size(),
                   assembly.config.train.rows_of_evaluation());
}

void take(Assembly& assembly, ScheduleChoice choice) {
  const TrainConfig& train = assembly.config.train;
  LowerOptions options;
  options.clip = train.clip_grad_norm > 0;
  options.post_validation = train.post_validation;
  options.recompute = assembly.config.pipeline.recompute;
  assembly.programs = std::make_shared<Programs>(std::move(choice.schedule), assembly.partition.topology, options,
                                                 choice.order, memories_of(assembly));
  assembly.training_program();
  check_programs(assembly, Mode::train, epoch_size(assembly), train.batch);
  if (train.eval_every > 0) check_evaluation_programs(assembly);
}

void check_slices(const Assembly& assembly) {
  const Config& config = assembly.config;
  const ModelGraph& graph = assembly.graph;
  const TrainConfig& train = config.train;
  const std::int64_t epoch = epoch_size(assembly);
  const std::int64_t last = epoch % train.batch;  // rows of the short batch of an epoch
  for (const std::int64_t rows : {std::min(train.batch, epoch), last}) {
    if (rows == 0) continue;
    const std::int64_t least = slice_rows(train.batch, train.micro_batches, rows).back();
    if (least >= graph.least_rows) continue;
    throw config.root.section("train").error(
        "micro_batches", concat("got ", train.micro_batches, ": a batch of ", rows, " samples",
                                rows == last ? " (the last of an epoch)" : "", " then has a micro-batch of ", least,
                                ", but ", layer_text(graph.layers[graph.least_rows_layer]),
                                " expects more than 1 value per channel when training: at least ", graph.least_rows,
                                " samples; use fewer micro-batches, or a batch that leaves no such remainder"));
  }
}

ModelGraph described(const Assembly& assembly, const Dataset& data, std::int64_t rows) {
  const TrainConfig& train = assembly.config.train;
  return describe_model(assembly.model, data.entries(rows), assembly.losses, graph_options(train, train.batch));
}

void check_evaluation_set(const Assembly& assembly) {
  const TrainConfig& train = assembly.config.train;
  if (!assembly.data.eval && train.eval_every == 0)
    throw assembly.config.root.section("data").error("eval", "got no evaluation set, expected one to evaluate");
  if (!assembly.data.eval)
    throw assembly.config.root.section("train").error(
        "eval_every", concat("got ", train.eval_every, ", but the data has no evaluation set; give it one, or leave ",
                             "eval_every out"));
  for (int set = 0; set < evaluation_sets(assembly.data); ++set) {
    described(assembly, evaluation_set(assembly.data, set), 1);
    TargetChecks(assembly.graph, assembly.losses).check_all(evaluation_set(assembly.data, set));
  }
}

Replicas replicas_of(const Assembly& assembly) {
  const Config& config = assembly.config;
  Replicas replicas = replicas_of(config);
  replicas.shard_optimizer = config.replicas.shard_optimizer;
  replicas.whole_parameters = !assembly.optimizer.rule->is_elementwise();
  return replicas;
}

/// Steps for epochs.
void resolve_epochs(Assembly& assembly) {
  TrainConfig& train = assembly.config.train;
  if (train.epochs == 0) return;
  const std::int64_t of_epoch = (epoch_size(assembly) + train.batch - 1) / train.batch;
  std::int64_t steps = 0;
  if (__builtin_mul_overflow(std::exchange(train.epochs, 0), of_epoch, &steps))
    throw assembly.config.root.section("train").error("epochs", concat("got more than ", INT64_MAX, " steps"));
  train.steps = steps;
}

/// One process has the main memory that all of it is in.
void check_central(const Assembly& assembly) {
  const Section section = assembly.config.root.section("replicas");
  if (assembly.config.replicas.strategy != ReplicaStrategy::central_storage) return;
  if (assembly.ranks.count > 1)
    throw section.error("strategy",
                        concat("got central_storage in ", assembly.ranks.count, " processes, expected one: ",
                               "its weights are in one main memory; over ranks there is mirrored"));
}

/// Whether all that a step does can be done to the rows of a table that were used.
void check_sparse(const Assembly& assembly) {
  const auto& parameters = assembly.graph.parameters;
  const auto sparse = std::find_if(parameters.begin(), parameters.end(), [](const ParameterInfo& parameter) {
    return parameter.is_sparse && parameter.trainable;
  });
  if (sparse == parameters.end()) return;
  const Section train = assembly.config.root.section("train");
  const std::string has = concat(", but ", sparse->name, " is sparse: ");
  if (!assembly.optimizer.rule->is_rowwise())
    throw train.section("optimizer")
        .error("type", concat("got ", assembly.optimizer.config.type_name(), has,
                              "it looks at more than one row for each; take another optimizer, or leave `sparse` out"));
  if (assembly.optimizer.ema_decay)
    throw train.error("ema",
                      concat("is given", has, "an average moves in every row at every step; leave one of the two out"));
  if (assembly.config.train.post_validation)
    throw train.error("post_validation",
                      concat("got true", has, "what is taken back is kept of the whole table; leave it out"));
}

/// What servers can serve: a worker reads what it will use before it computes.
void check_served(const Assembly& assembly) {
  const Config& config = assembly.config;
  const ModelGraph& graph = assembly.graph;
  if (!config.replicas.has_servers()) return;
  const Section section = config.root.section("replicas");
  const auto layer_of = [&](int layer) { return layer_text(graph.layers[static_cast<std::size_t>(layer)]); };
  for (const BufferInfo& buffer : graph.buffers) {
    if (buffer.is_state)
      throw section.error("strategy", concat("got parameter_server, but ", layer_of(buffer.layer),
                                             " carries state from batch to batch, which no worker has there; ",
                                             "expected mirrored or central_storage, or `carry: false`"));
    if (config.replicas.max_staleness > 0)
      throw section.error("max_staleness",
                          concat("got ", config.replicas.max_staleness, ", but ", layer_of(buffer.layer),
                                 " keeps statistics of whole mini-batches (", buffer.name,
                                 "), which nobody has when each replica updates by itself; expected 0, or a model ",
                                 "with another normalization"));
  }
  for (int layer = 0; layer < graph.layer_count(); ++layer)
    for (const HeldParameter& held : graph.held[static_cast<std::size_t>(layer)])
      for (const int input : graph.inputs[static_cast<std::size_t>(layer)])
        if (graph.parameters[static_cast<std::size_t>(held.index)].is_sparse &&
            graph.values[static_cast<std::size_t>(input)].producer >= 0)
          throw section.error(
              "strategy", concat("got parameter_server, but ", layer_of(layer), " reads rows of the sparse table ",
                                 graph.parameters[static_cast<std::size_t>(held.index)].name, " by what another layer ",
                                 "makes; a worker has to know from the data which rows it will read"));
}

/// As if there were no other.
Partition one_replica(const Assembly& assembly) {
  return cut(assembly.graph, layers_per_stage(assembly.graph, assembly.config));
}

/// Without measured costs.
ScheduleChoice choose(const Assembly& assembly, const Partition& one) {
  return choose_schedule(assembly.config, one, replicas_of(assembly).most_micro_batches());
}

/// Cuts, places and schedules.
void arrange(Assembly& assembly) {
  check_sparse(assembly);
  check_served(assembly);
  const Config& config = assembly.config;
  const Replicas replicas = replicas_of(assembly);
  const Partition one = one_replica(assembly);
  assembly.partition = cut(assembly.graph, layers_per_stage(assembly.graph, config), replicas);
  if (config.replicas.has_servers()) assembly.partition.topology.servers = config.replicas.servers;
  assembly.recompute = recomputed_layers(assembly.graph, config);
  if (config.pipeline.costs.given) costs_of(config, one);  // finds mistakes now
  ScheduleChoice choice = choose(assembly, one);
  assembly.warnings = assembly.data.notes;
  for (std::string& doubt : doubts_of(config, epoch_size(assembly))) assembly.warnings.push_back(std::move(doubt));
  if (assembly.model.adapter && config.train.init_from.empty())
    assembly.warnings.push_back(
        "model.lora adapts a base that is drawn from the seed: train.init_from gives the one that is meant");
  if (!choice.warning.empty()) assembly.warnings.push_back(choice.warning);
  place(assembly, choice.schedule.workers());
  check_central(assembly);
  take(assembly, std::move(choice));
}

}  // namespace

Sampler sampler_of(const Config& config, const DataSplits& data) {
  return Sampler(data.train->size(), config.seed, data.sampling, config.train.batch);
}

Assembly assemble(Model model, DataSplits data, Config config, const Ranks& ranks, const TrainTables& tables) {
  Assembly assembly{
      std::move(config), std::move(model), std::move(data), ranks, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  assembly.losses = losses_of(assembly.model, assembly.config, tables.losses);
  const bool answers = assembly.data.inputs.has_value();
  if (answers)
    for (auto& loss : assembly.losses) loss = without_targets(std::move(loss));
  const TrainConfig& train = assembly.config.train;
  check_config(assembly.config);
  check_datasets(assembly.data);
  resolve_epochs(assembly);
  assembly.optimizer = choose_optimizer(train, tables.optimizers);
  assembly.learning_rate = learning_rate_of(train, tables.lr_schedules);
  const std::int64_t rows = slice_rows(train.batch, train.micro_batches, train.batch)[0];
  assembly.graph = described(assembly, *assembly.data.train, rows);
  if (!answers) assembly.metrics = metrics_of(assembly, tables.metrics);
  check_metrics(assembly);
  if (!answers) check_watched(assembly);
  std::vector<std::string> parameter_names;
  std::vector<Sizes> parameter_sizes;
  for (const ParameterInfo& parameter : assembly.graph.parameters) {
    parameter_names.push_back(parameter.name);
    parameter_sizes.push_back(parameter.sizes);
  }
  check_kept(assembly.optimizer, parameter_sizes, assembly.config.root.section("train"));
  check_patterns(train, parameter_names, assembly.config.root.section("train"));
  if (train.eval_every > 0) check_evaluation_set(assembly);
  TargetChecks(assembly.graph, assembly.losses).check_all(*assembly.data.train);
  check_slices(assembly);
  arrange(assembly);
  return assembly;
}

Assembly assemble_again(const Assembly& assembly, Config config, const Ranks& ranks) {
  const TrainConfig &wanted = config.train, &train = assembly.config.train;
  LOCKSTEP_CHECK(wanted.optimizer == train.optimizer && wanted.lr_schedule == train.lr_schedule &&
                     wanted.ema == train.ema && wanted.steps == train.steps && wanted.precision == train.precision,
                 "another training is another assembly");
  Assembly again = assembly;
  again.config = std::move(config);
  again.ranks = ranks;
  again.layout = {};
  again.devices.clear();
  check_config(again.config);
  arrange(again);
  return again;
}

Assembly with_costs(Assembly assembly, const Costs& costs, std::string& reason) {
  const Partition one = one_replica(assembly);
  Costs of_one = costs;  // the replicas' are alike
  of_one.stages.resize(static_cast<std::size_t>(one.stages()));
  of_one.flow_bytes.resize(std::min(of_one.flow_bytes.size(), one.flows.size()));
  of_one.shared_bytes.resize(std::min(of_one.shared_bytes.size(), one.topology.shared.size()));
  const auto workers = static_cast<std::size_t>(assembly.config.pipeline.workers());
  for (auto* by_row : {&of_one.update_us, &of_one.reduce_us, &of_one.resident_bytes})
    by_row->resize(std::min(by_row->size(), workers));
  of_one.places.resize(std::min(of_one.places.size(), workers));
  ScheduleChoice choice =
      choose_schedule(assembly.config, one, assembly.partition.topology.replicas.most_micro_batches(), &of_one);
  reason = choice.reason;
  take(assembly, std::move(choice));
  return assembly;
}

Assembly with_devices(Assembly assembly, std::vector<at::Device> devices) {
  assembly.devices = std::move(devices);
  take(assembly, choose(assembly, one_replica(assembly)));
  return assembly;
}

Schedule schedule_of_replica(const Assembly& assembly) {
  return choose(assembly, one_replica(assembly)).schedule;
}

double Watched::badness(const StepResult& evaluation) const {
  if (name == kEvalLoss) return evaluation.loss();
  for (const MetricValue& metric : evaluation.metrics)
    if (metric.name == name) return more_is_better ? -metric.value : metric.value;
  return NAN;
}

Watched watched_of(const Assembly& assembly, const std::string& name, const Section& section, const char* key) {
  if (name == kEvalLoss) return {name, false};
  std::vector<std::string> names = {kEvalLoss};
  for (std::size_t head = 0; head < assembly.metrics.size(); ++head)
    for (const auto& metric : assembly.metrics[head]) {
      names.push_back(metric_name(assembly.metrics, head, *metric));
      if (names.back() == name) return {name, metric->more_is_better()};
    }
  throw section.error(key, concat("got '", name, "', which no evaluation gives; expected one of ", join(names),
                                  did_you_mean(name, names), "; train.metrics names what is measured"));
}

void check_evaluation(const Assembly& assembly) {
  if (assembly.config.train.eval_every > 0) return;  // assemble() has done it
  check_evaluation_set(assembly);
  check_evaluation_programs(assembly);
}

Environment environment_of(const Assembly& assembly) {
  std::set<std::string> kinds, cards;
  for (std::size_t row = 0; row < assembly.devices.size(); ++row) {
    const at::Device device = assembly.devices[row];
    kinds.insert(c10::DeviceTypeName(device.type(), /*lower_case=*/true));
    if (assembly.layout.rank_of_row[row] == assembly.layout.here) cards.insert(card_of(device));
  }
  cards.erase("");
  Environment environment = environment_of(assembly.config);
  environment.entries.emplace_back("devices", join(kinds, " + "));
  environment.entries.emplace_back(kCard, cards.empty() ? "none" : join(cards, " + "));
  return environment;
}

std::string agreement(const Assembly& assembly) {
  std::string text = resolved_yaml(assembly.config);
  for (const auto& [key, value] : environment_of(assembly).entries)
    if (key != kCard) text += concat(key, ": ", value, "\n");
  text += concat("library: ", library_hash(), "\n");
  text += concat("first layers: ", join(assembly.partition.first_layer),
                 "\nranks of rows: ", join(assembly.layout.rank_of_row), "\n");
  const Program& program = assembly.training_program();
  for (const auto& row : program.rows) {
    for (const Instruction& instruction : row) text += describe(program, instruction) + "; ";
    text += "\n";
  }
  return text;
}

}  // namespace lockstep
