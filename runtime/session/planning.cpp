// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/planning.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <set>

#include "partitioner/cuts.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/pattern.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/session/profiling.hpp"
#include "runtime/session/worker_devices.hpp"
#include "runtime/training/placement.hpp"
#include "runtime/training/precision.hpp"
#include "runtime/training/schedule_choice.hpp"

namespace lockstep {
namespace {

double data_bytes(const ModelGraph& graph, std::int64_t batch) {
  double bytes = 0;
  for (const int id : graph.sources) {
    const EntrySpec& entry = graph.values[id].spec;
    double size = static_cast<double>(c10::elementSize(entry.dtype));
    for (std::size_t i = entry.batched ? 1 : 0; i < entry.sizes.size(); ++i)
      size *= static_cast<double>(entry.sizes[i]);
    bytes += size * (entry.batched ? static_cast<double>(batch) : 1.0);
  }
  return bytes;
}

LayerCost cost_of(const LayerProfile& layer, double mean_rows, std::int64_t most_rows) {
  const LayerSample times = sample_at(layer, mean_rows), bytes = sample_at(layer, static_cast<double>(most_rows));
  LayerCost cost;
  for (const LayerCostField& field : layer_cost_fields())
    cost.*field.member = (field.is_time ? times : bytes).*field.member;
  return cost;
}

std::int64_t most_rows(const Config& config, int micro_batches) {
  return (config.train.batch + micro_batches - 1) / micro_batches;
}

/// By stage: forwards whose backward has not ended, at most.
std::vector<int> in_flight_of(const Program& program) {
  std::vector<int> alive(program.wiring.row_of_stage.size(), 0), most(alive);
  for (const auto& row : program.rows)
    for (const Instruction& instruction : row) {
      if (instruction.kind != InstructionKind::compute) continue;
      const auto stage = static_cast<std::size_t>(instruction.action.stage.value());
      if (instruction.action.op == Op::forward) most[stage] = std::max(most[stage], ++alive[stage]);
      if (instruction.action.op == Op::backward || instruction.action.op == Op::input_grad) --alive[stage];
    }
  return most;
}

}  // namespace

Planning::Planning(const Config& config, std::string config_path, const Trainer& whole, const Profile& profile,
                   const std::vector<PlannedWorker>& workers)
    : config_(config), config_path_(std::move(config_path)), whole_(whole), profile_(profile) {
  if (config.replicas.has_servers())
    throw config.root.section("replicas")
        .error("strategy",
               "got parameter_server, which is not planned: its workers follow no schedule; expected mirrored or "
               "central_storage");
  const ModelGraph& graph = whole.graph();
  for (const PlannedWorker& worker : workers) {
    std::vector<LayerProfile>& layers = layers_[worker.kind];
    for (int layer = static_cast<int>(layers.size()); layer < graph.layer_count(); ++layer)
      layers.push_back(
          profile_of_layer(profile, graph.layers[layer].name, signature_of(graph, layer, whole.losses()), worker.kind));
  }
}

PlanProblem Planning::problem(Replicas replicas, std::vector<PlannedWorker> workers) const {
  const TrainConfig& train = config_.train;
  const int micro_batches = replicas.micro_batches;
  const std::int64_t rows = most_rows(config_, micro_batches);
  const double mean_rows = static_cast<double>(train.batch) / micro_batches;
  const ModelGraph graph = describe_for(whole_, rows);
  PlanProblem problem;
  problem.graph = layer_graph_of(graph);
  for (const auto& [kind, layers] : layers_)
    for (const LayerProfile& layer : layers) {
      std::vector<LayerCost>& costs = problem.layers[kind];
      LayerCost& cost = costs.emplace_back(cost_of(layer, mean_rows, rows));
      cost.step_bytes += carried_bytes(graph, static_cast<int>(costs.size()) - 1, train.batch);
      if (!config_.pipeline.recompute_layers.empty())
        cost.recomputable = matches(config_.pipeline.recompute_layers, layer.name);
    }
  problem.value_bytes = value_bytes(graph, dtype_of(train.precision));
  problem.parameter_bytes = master_bytes(train.precision);
  problem.optimizer_bytes = optimizer_bytes(whole_.assembly());
  problem.data_bytes = data_bytes(graph, train.batch);
  problem.workers = std::move(workers);
  problem.links = profile_.links;
  for (const auto& [kind, layers] : layers_) problem.add_us_per_byte[kind] = add_us_per_byte_of(profile_, kind);
  replicas.shard_optimizer = config_.replicas.shard_optimizer;
  replicas.whole_parameters = !whole_.assembly().optimizer.rule->is_elementwise();
  problem.central_storage = config_.replicas.strategy == ReplicaStrategy::central_storage;
  set_replicas(problem, replicas);
  problem.clip = train.clip_grad_norm > 0;
  problem.post_validation = train.post_validation;
  return problem;
}

PlanFile Planning::file(const PlanProblem& asked, const RankedPlan& plan) const {
  PlanProblem problem = asked;
  PlanFile file;
  file.choice = plan.choice;
  file.idle = drop_idle(problem, file.choice);
  file.config = config_path_;
  file.model = config_.name;
  file.layers = whole_.graph().layer_count();
  file.signature = model_signature(whole_);
  file.batch = config_.train.batch;
  file.micro_batches = problem.replicas.micro_batches;
  file.replicas = problem.replicas.count;
  file.gradient_groups = problem.replicas.groups;
  file.workers = problem.workers;
  Config planned = config_;
  take_choice(planned, file.choice, problem.replicas);
  file.recompute_text = recompute_text(planned.pipeline);
  file.key = prediction_key(planned, file.workers);
  file.predicted = prediction(problem, file.choice, program_of(problem, file.choice), costs_of(problem, file.choice),
                              plan.simulated);
  file.profile = carried_profile();
  return file;
}

PlanPrediction Planning::prediction(const PlanProblem& problem, const PlanChoice& choice, const Program& program,
                                    Costs costs, const Simulation& simulated) const {
  const ModelGraph& graph = whole_.graph();
  PlanPrediction p;
  p.costs = std::move(costs);
  p.step_us = simulated.period_us;
  p.alone_us = simulated.step_us;
  p.bubble = simulated.bubble;
  p.bubble_steady = simulated.bubble_steady;
  p.compute_us = simulated.work_us;
  for (const double us : p.compute_us) p.wait_us.push_back(std::max(0.0, p.step_us - us));
  p.peak_bytes = simulated.total_bytes;
  const std::vector<int> first = first_layers(choice.layers_per_stage), in_flight = in_flight_of(program);
  const std::vector<bool> again = recomputed(program);
  const auto of_replica = choice.layers_per_stage.size(), all = static_cast<std::size_t>(program.micro_batches);
  for (std::size_t s = 0; s < in_flight.size(); ++s) {
    const int begin = first[s % of_replica], end = first[s % of_replica + 1];
    PredictedStage& stage = p.stages.emplace_back();
    stage.row = program.wiring.row_of_stage[s].value();
    stage.layers = end - begin;
    stage.in_flight = in_flight[s];
    stage.parameters = graph.elements_of_layers(begin, end);
    stage.state_bytes = state_bytes(problem, begin, end);
    if (s >= of_replica) continue;
    const PlannedWorker& worker = problem.workers[choice.worker_of(static_cast<std::size_t>(stage.row))];
    const TermRange mine = problem.replicas.micro_batches_of(0, program.micro_batches);
    const auto of_stage = again.begin() + static_cast<std::ptrdiff_t>(s * all);
    const auto runs_again = static_cast<double>(std::count(of_stage + mine.begin, of_stage + mine.end, true));
    for (int layer = begin; layer < end; ++layer) {
      const LayerCost& cost = problem.layers.at(worker.kind)[static_cast<std::size_t>(layer)];
      PredictedLayer& entry = p.layers.emplace_back();
      entry.name = graph.layers[layer].name;
      entry.forward_us = cost.forward_us / worker.speed;
      entry.input_grad_us = cost.input_grad_us / worker.speed;
      entry.weight_grad_us = cost.weight_grad_us / worker.speed;
      entry.step_us = (mine.end - mine.begin) * (entry.forward_us + entry.input_grad_us + entry.weight_grad_us) +
                      (cost.recomputable ? runs_again * entry.forward_us : 0.0);
    }
  }
  return p;
}

/// No more of the profile than this model needs; the plan has the workers itself.
std::string Planning::carried_profile() const {
  Profile carried = profile_;
  carried.workers.clear();
  std::erase_if(carried.layers, [this](const LayerProfile& layer) {
    const auto used = layers_.find(layer.kind);
    return used == layers_.end() || std::none_of(used->second.begin(), used->second.end(), [&](const LayerProfile& of) {
             return of.signature == layer.signature;
           });
  });
  return to_yaml(carried);
}

PlanPrediction Planning::predict(const Trainer& trainer, const PlanProblem& problem) const {
  const PlanChoice choice = choice_of(trainer);
  const Schedule schedule = schedule_of_replica(trainer.assembly());
  const Costs costs = costs_of(problem, choice, schedule);
  const Program& program = trainer.programs().get(Mode::train, trainer.micro_batches());
  return prediction(problem, choice, program, costs, simulate(program, costs, 0));
}

std::vector<std::string> Planning::rows_untold() const {
  std::vector<std::string> names;
  for (const auto& [kind, layers] : layers_)
    for (const LayerProfile& layer : layers)
      if (layer.rows_untold && std::find(names.begin(), names.end(), layer.name) == names.end())
        names.push_back(layer.name);
  return names;
}

std::vector<int> Planning::cut_by(CutBy by, const PlanProblem& problem, int stages) const {
  std::vector<double> weights;
  for (int layer = 0; layer < problem.graph.layers(); ++layer) {
    const LayerCost& cost = problem.layers.at(problem.workers.front().kind)[static_cast<std::size_t>(layer)];
    switch (by) {
      case CutBy::layers: weights.push_back(1); break;
      case CutBy::params: weights.push_back(static_cast<double>(whole_.graph().elements_of_layer(layer))); break;
      case CutBy::memory: weights.push_back(state_bytes(problem, layer, layer + 1) + cost.activation_bytes); break;
      case CutBy::time:
      case CutBy::block: weights.push_back(cost.forward_us + cost.input_grad_us + cost.weight_grad_us); break;
      case CutBy::automatic: LOCKSTEP_CHECK(false, "auto is found by search");
    }
  }
  return by == CutBy::block ? block_cut(weights, stages) : balanced_cut(weights, stages);
}

std::vector<int> Planning::cut_before(const std::vector<std::string>& names, const std::string& flag) const {
  std::vector<std::string> layers;
  for (const LayerSpec& layer : whole_.graph().layers) layers.push_back(layer.name);
  try {
    return lockstep::cut_before(layers, names);
  } catch (const UserError& error) {
    throw UserError(concat(flag, ": ", error.what()));
  }
}

std::vector<std::string> Planning::doubts(int micro_batches) const {
  std::vector<std::string> doubts;
  std::set<std::string> misfits, seen;  // layers of one signature are said once
  const auto rows = most_rows(config_, micro_batches);
  bool beyond = false;
  for (const auto& [kind, layers] : layers_)
    for (const LayerProfile& layer : layers) {
      const LayerSample sample = sample_at(layer, static_cast<double>(rows));
      const double all_us = sample.forward_us + sample.input_grad_us + sample.weight_grad_us;
      if (layer.misfit > kMisfit + sample.spread && all_us > kTinyUs && seen.insert(kind + layer.signature).second)
        misfits.insert(
            concat(layer.name, layers_.size() > 1 ? " on " + kind : "", " (", std::lround(layer.misfit * 100), " %)"));
      beyond = beyond || (layer.samples.front().rows > 0 &&
                          (rows > 2 * layer.samples.back().rows || 2 * rows < layer.samples.front().rows));
    }
  if (!misfits.empty())
    doubts.push_back(concat("times not linear in rows: ", join(misfits), "; measure with --rows close to ", rows));
  if (beyond)
    doubts.push_back(concat("micro-batches of ", rows,
                            " rows are far from those that were measured; measure with --rows ",
                            std::max<std::int64_t>(1, rows / 2), ",", rows));
  return doubts;
}

std::vector<double> optimizer_bytes(const Assembly& assembly) {
  std::vector<double> bytes;
  for (const ParameterInfo& parameter : assembly.graph.parameters)
    bytes.push_back(parameter.trainable ? static_cast<double>(assembly.optimizer.state_bytes(parameter.sizes)) : 0.0);
  return bytes;
}

std::vector<double> state_bytes_of_stages(const Assembly& assembly) {
  PlanProblem problem;
  problem.graph = layer_graph_of(assembly.graph);
  problem.parameter_bytes = master_bytes(assembly.config.train.precision);
  problem.optimizer_bytes = optimizer_bytes(assembly);
  const std::vector<int>& first = assembly.partition.first_layer;
  std::vector<double> bytes;
  for (std::size_t s = 0; s + 1 < first.size(); ++s) bytes.push_back(state_bytes(problem, first[s], first[s + 1]));
  return bytes;
}

std::string model_signature(const Trainer& trainer) {
  const ModelGraph& graph = trainer.graph();
  std::string text;
  for (int layer = 0; layer < graph.layer_count(); ++layer)
    text += concat(graph.layers[layer].name, " ", signature_of(graph, layer, trainer.losses()), "\n");
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << mix_seed(0, 0, 0, text);
  return out.str();
}

std::string plan_again(const PlanFile& plan, const Config& config) {
  return concat("plan again: lockstep plan ", config.root.location().file, " --profile profile.json --workers ",
                plan.workers.size() + plan.idle.size(), " -o ", plan.root.location().file);
}

PlanChoice choice_of(const Trainer& trainer) {
  const PipelineConfig& pipeline = trainer.config().pipeline;
  const std::vector<int>& first = trainer.partition().first_layer;  // of one replica
  PlanChoice choice;
  for (std::size_t stage = 0; stage + 1 < first.size(); ++stage)
    choice.layers_per_stage.push_back(first[stage + 1] - first[stage]);
  choice.virtual_stages = pipeline.virtual_stages;
  choice.schedule = pipeline.schedule;
  choice.recompute = pipeline.recompute;
  const Config& config = trainer.config();
  const int workers = static_cast<int>(trainer.layout().rank_of_row.size()) / config.replicas.count;
  for (int row = 0; row < workers * config.replicas.count; ++row)
    choice.placement.push_back(worker_of(config, row / workers, row % workers, workers));
  return choice;
}

std::string recompute_text(const PipelineConfig& pipeline) {
  if (pipeline.recompute_layers.empty()) return to_string(pipeline.recompute);
  std::vector<std::string> quoted;
  for (const std::string& pattern : pipeline.recompute_layers) quoted.push_back("'" + pattern + "'");
  return "[" + join(quoted) + "]";
}

void take_choice(Config& config, const PlanChoice& choice, const Replicas& replicas) {
  PipelineConfig& pipeline = config.pipeline;
  config.train.micro_batches = replicas.micro_batches;
  config.train.gradient_groups = replicas.groups;
  config.replicas.count = replicas.count;
  config.replicas.placement = placement_of_replicas(choice, replicas.count);
  pipeline.stages = static_cast<int>(choice.layers_per_stage.size());
  pipeline.virtual_stages = choice.virtual_stages;
  pipeline.schedule = choice.schedule;
  pipeline.partition = {};
  pipeline.partition.counts = choice.layers_per_stage;
  if (choice.recompute != Recompute::always) pipeline.recompute_layers.clear();
  pipeline.recompute = choice.recompute;
  pipeline.placement = placement_of_one(choice, replicas.count);
  if (!pipeline.placement.empty()) return;
  pipeline.placement.resize(static_cast<std::size_t>(pipeline.workers()));
  std::iota(pipeline.placement.begin(), pipeline.placement.end(), 0);
}

std::vector<PlannedWorker> workers_on_ranks(const Profile& profile, const std::vector<RankId>& rank_of_worker,
                                            const Config& config) {
  std::vector<PlannedWorker> workers;
  for (const RankId rank : rank_of_worker) {
    PlannedWorker worker =
        planned_worker(profile, config, static_cast<int>(workers.size()), static_cast<std::size_t>(rank.value()));
    worker.place.rank = rank.value();
    if (config.workers.memory_limit > 0) worker.limit_bytes = static_cast<double>(config.workers.memory_limit);
    workers.push_back(worker);
  }
  return workers;
}

}  // namespace lockstep
