// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/rebalance.hpp"

#include <algorithm>
#include <iomanip>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/base/text.hpp"
#include "runtime/graph/partition.hpp"
#include "runtime/host/binding.hpp"
#include "runtime/profile/measure.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

/// Nothing for a schedule that no generator makes. Workers are counted by row here.
std::optional<PlanChoice> plannable(const Trainer& trainer) {
  const PipelineConfig& pipeline = trainer.config().pipeline;
  if (trainer.config().replicas.count > 1) return std::nullopt;
  if (find_generator(pipeline.schedule) == nullptr || !pipeline.schedule_file().empty()) return std::nullopt;
  PlanChoice choice = choice_of(trainer);
  choice.placement.clear();
  return choice;
}

/// What was measured on one kind of device, as it would be on another one.
LayerCost carried_over(const LayerCost& measured, const LayerCost& from, const LayerCost& to) {
  LayerCost cost = measured;
  for (const LayerCostField& field : layer_cost_fields())
    cost.*field.member =
        from.*field.member > 0 ? measured.*field.member / from.*field.member * to.*field.member : to.*field.member;
  return cost;
}

/// "workers 0 and 2 share cuda:0"; empty: each has a device of its own, or the host.
std::string shared_device(const Trainer& trainer) {
  const std::vector<at::Device>& devices = trainer.assembly().devices;
  const std::vector<RankId>& ranks = trainer.layout().rank_of_row;
  for (std::size_t row = 0; row < devices.size(); ++row) {
    std::vector<std::size_t> rows;
    for (std::size_t other = row; other < devices.size() && !devices[row].is_cpu(); ++other)
      if (devices[other] == devices[row] && ranks[other] == ranks[row]) rows.push_back(other);
    if (rows.size() > 1) return concat("workers ", join(rows, " and "), " are on one device, ", devices[row].str());
  }
  return "";
}

}  // namespace

bool KindsOfRows::unlike() const {
  return std::any_of(of_row.begin(), of_row.end(), [this](const std::string& kind) { return kind != of_row.front(); });
}

KindsOfRows kinds_of_rows(const Trainer& trainer, const LoadedConfig& loaded) {
  KindsOfRows kinds;
  const std::optional<PlanFile>& plan = loaded.plan;
  const std::vector<at::Device>& devices = trainer.assembly().devices;
  const bool planned = plan && plan->workers.size() == devices.size();
  for (std::size_t row = 0; row < devices.size(); ++row) {
    const std::string name = devices[row].str();
    kinds.of_row.push_back(planned ? plan->workers[plan->choice.worker_of(row)].kind : name.substr(0, name.find(':')));
  }
  if (!planned || plan->profile.empty() || !kinds.unlike()) return kinds;
  try {
    const Profile profile = read_profile(load_config_text(plan->profile, "the plan's profile"));
    const Planning planning(trainer.config(), plan->config, trainer, profile, plan->workers);
    kinds.costs = planning.problem(trainer.partition().topology.replicas, plan->workers).layers;
  } catch (const UserError&) {  // adopt_plan() has said it
  }
  return kinds;
}

std::string to_text(const Rebalanced& rebalanced) {
  return nlohmann::json{{"layers", rebalanced.layers_per_stage}, {"expected_us", rebalanced.expected_us}}.dump();
}

Rebalanced rebalanced_from(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json.at("layers"), json.at("expected_us")};
}

std::string shared_cores(Process& process, const Trainer& trainer) {
  const std::vector<RankId>& ranks = trainer.layout().rank_of_row;
  const auto workers = std::count(ranks.begin(), ranks.end(), process.ranks().here);
  std::vector<Tenants> processes;
  for (const std::string& text :
       process.all_gather(concat(process.host(), " ", workers, " ", join(allowed_cpus(), " ")))) {
    std::istringstream in(text);
    Tenants& tenants = processes.emplace_back();
    in >> tenants.host >> tenants.workers;
    tenants.cpus.assign(std::istream_iterator<int>(in), {});
  }
  std::string found = more_than_cores(processes, trainer.config().workers.threads);
  if (found.empty()) found = shared_device(trainer);
  return found.empty() ? "" : found + ": they share them, so their times do not tell which worker is slow";
}

Rebalancer::Rebalancer(Trainer& trainer, Observer& next, const KindsOfRows& kinds, std::vector<double> expected_us,
                       bool replan, Log log)
    : trainer_(trainer),
      next_(next),
      kinds_(kinds),
      watch_(std::move(expected_us)),
      replan_(replan),
      log_(std::move(log)) {}

void Rebalancer::on_result(const StepResult& result) {
  next_.on_result(result);
  if (meter_) meter_->add(result);
  if (const std::optional<SlowWorker> slow = watch_.add(result); slow && meter_ && !wanted_)
    look_for_better_cuts(*slow);
  if (!watch_.suspects())
    meter_.reset();
  else if (!meter_)
    meter_.emplace(trainer_.programs().get(Mode::train, trainer_.micro_batches()));
}

/// What a layer costs on the kind that it was measured on, and by the plan's profile on the others.
void Rebalancer::add_kinds(PlanProblem& problem, int layer, const std::string& kind, const LayerCost& measured) const {
  problem.layers[kind].push_back(measured);
  const auto at = static_cast<std::size_t>(layer);
  for (const auto& [other, costs] : kinds_.costs)
    if (other != kind) problem.layers[other].push_back(carried_over(measured, kinds_.costs.at(kind)[at], costs[at]));
}

/// What the stages measured, spread over their layers as these measured, as it would be on workers of equal speed.
PlanProblem Rebalancer::problem(const Costs& costs) const {
  const ModelGraph& graph = trainer_.graph();
  const Partition& partition = trainer_.partition();
  const Config& config = trainer_.config();
  const std::vector<WorkerId>& row_of_stage = trainer_.programs().wiring().row_of_stage;
  const std::vector<double> layer_us = meter_->layer_us();
  PlanProblem problem;
  problem.graph = layer_graph_of(graph);
  problem.value_bytes = value_bytes(graph, dtype_of(config.train.precision));
  problem.parameter_bytes = master_bytes(config.train.precision);
  problem.optimizer_bytes = optimizer_bytes(trainer_.assembly());
  problem.micro_batches = trainer_.micro_batches();
  problem.clip = config.train.clip_grad_norm > 0;
  problem.post_validation = config.train.post_validation;
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const StageCost& cost = costs.stages[static_cast<std::size_t>(stage)];
    const auto [first, end] = partition.layers_of(StageId(stage));
    const auto row = static_cast<std::size_t>(row_of_stage[stage].value());
    const double factor = watch_.factors()[row];
    double sum_us = 0;
    for (int layer = first; layer < end; ++layer) sum_us += layer_us[layer];
    for (int layer = first; layer < end; ++layer) {
      const double share = sum_us > 0 ? layer_us[layer] / sum_us : 1.0 / (end - first);
      LayerCost entry;
      entry.forward_us = cost.forward_us * share / factor;
      entry.input_grad_us = cost.input_grad_us * share / factor;
      entry.weight_grad_us = cost.weight_grad_us * share / factor;
      entry.activation_bytes = std::max(cost.activation_bytes, cost.recompute_activation_bytes) / (end - first);
      entry.weight_grad_bytes = cost.weight_grad_bytes / (end - first);
      add_kinds(problem, layer, kinds_.of_row[row], entry);
    }
  }
  const std::vector<RankId>& rank_of_row = trainer_.layout().rank_of_row;
  for (std::size_t row = 0; row < rank_of_row.size(); ++row) {
    PlannedWorker worker;
    worker.speed = 1 / watch_.factors()[row];
    if (config.workers.memory_limit > 0) worker.limit_bytes = static_cast<double>(config.workers.memory_limit);
    worker.place.rank = rank_of_row[row].value();
    worker.place.device = trainer_.assembly().devices[row].str();
    worker.kind = kinds_.of_row[row];
    problem.workers.push_back(worker);
  }
  return problem;
}

void Rebalancer::look_for_better_cuts(const SlowWorker& slow) {
  static constexpr const char* kLook = "; see what else runs on its host, and how fast its cores are";
  std::ostringstream said;
  said << "worker " << slow.row << " has been " << std::fixed << std::setprecision(2) << slow.factor
       << " times slower than expected since step " << slow.since_step;
  const std::optional<PlanChoice> now = plannable(trainer_);
  if (!now) {
    log_.warn(said.str() + kLook);
    return;
  }
  if (kinds_.unlike() && kinds_.costs.empty()) {
    log_.warn(said.str() + kLook +
              "; workers are on unlike devices, so only a run with a plan knows what other cuts would take");
    return;
  }
  const PlanProblem asked = problem(meter_->costs());
  PlanProblem even = asked;
  for (PlannedWorker& worker : even.workers) worker.speed = 1;
  const double now_us = judge(asked, *now).period_us, even_us = judge(even, *now).period_us;
  said << ": by simulation a step takes " << time_text(now_us) << ", and " << time_text(even_us) << " if it were not";
  PlanScope scope;
  scope.schedules = {now->schedule};
  scope.virtual_stages = {now->virtual_stages};
  scope.recomputes = {now->recompute};
  for (std::size_t row = 0; row < asked.workers.size(); ++row) scope.placement.push_back(static_cast<int>(row));
  const PlanResult result = make_plan(asked, scope);
  constexpr double kWorthIt = 0.95;
  if (!result.fits() || result.best().simulated.period_us > now_us * kWorthIt) {
    said << "; no other cut is better" << kLook;
    if (even_us > now_us * kWorthIt)
      log_.debug(said.str());  // steps would hardly be shorter: nothing to be done
    else
      log_.warn(said.str());
    return;
  }
  const PlanChoice& better = result.best().choice;
  said << "; layers per stage [" << join(better.layers_per_stage) << "] instead of [" << join(now->layers_per_stage)
       << "] would take " << time_text(result.best().simulated.period_us);
  if (replan_) {
    Rebalanced found{better.layers_per_stage, std::vector<double>(asked.workers.size(), 0.0)};
    const Costs costs = costs_of(asked, better);
    const Program program = program_of(asked, better);
    for (std::size_t stage = 0; stage < costs.stages.size(); ++stage) {
      const StageCost& cost = costs.stages[stage];
      found.expected_us[static_cast<std::size_t>(program.wiring.row_of_stage[stage].value())] +=
          asked.micro_batches * (cost.forward_us + cost.input_grad_us + cost.weight_grad_us);
    }
    found_ = std::move(found);
    wanted_ = true;
    said << "; they are moved at the next checkpoint";
  } else {
    said << "; --replan moves them at a checkpoint";
  }
  log_.warn(said.str());
}

}  // namespace lockstep
