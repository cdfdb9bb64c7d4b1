// SPDX-License-Identifier: Apache-2.0
#include "partitioner/problem.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "partitioner/cost_model.hpp"
#include "runtime/schedule/generators.hpp"

namespace lockstep {
namespace {

constexpr double kMs = 1000, kMiB = 1048576;
constexpr LayerCostField kFields[] = {
    {"forward_us", "forward_ms", kMs, true, true, &LayerCost::forward_us},
    {"input_grad_us", "input_grad_ms", kMs, true, true, &LayerCost::input_grad_us},
    {"weight_grad_us", "weight_grad_ms", kMs, true, true, &LayerCost::weight_grad_us},
    {"update_us", "update_ms", kMs, true, false, &LayerCost::update_us},
    {"activation_bytes", "activation_mib", kMiB, false, true, &LayerCost::activation_bytes},
    {"recompute_activation_bytes", "recompute_activation_mib", kMiB, false, true,
     &LayerCost::recompute_activation_bytes},
    {"weight_grad_bytes", "weight_grad_mib", kMiB, false, true, &LayerCost::weight_grad_bytes},
    {"step_bytes", "step_mib", kMiB, false, false, &LayerCost::step_bytes},
    {"forward_workspace_bytes", "forward_workspace_mib", kMiB, false, true, &LayerCost::forward_workspace_bytes},
    {"input_grad_workspace_bytes", "input_grad_workspace_mib", kMiB, false, true,
     &LayerCost::input_grad_workspace_bytes},
    {"weight_grad_workspace_bytes", "weight_grad_workspace_mib", kMiB, false, true,
     &LayerCost::weight_grad_workspace_bytes},
    {"backward_workspace_bytes", "backward_workspace_mib", kMiB, false, true, &LayerCost::backward_workspace_bytes},
};

constexpr LinkClass kLinkClasses[] = {
    {"same_rank", false, &Links::same_rank},   {"same_host", false, &Links::same_host},
    {"other_host", false, &Links::other_host}, {"to_device", true, &Links::to_device},
    {"to_host", true, &Links::to_host},        {"between_devices", true, &Links::between_devices}};

}  // namespace

std::span<const LayerCostField> layer_cost_fields() {
  return kFields;
}

std::span<const LinkClass> link_classes() {
  return kLinkClasses;
}

namespace {

Schedule schedule_of_choice(const CostModel& model, const PlanChoice& choice) {
  model.check(choice);
  const int rows = rows_of(model.problem(), choice) / model.problem().replicas.count;
  return make_schedule(choice.schedule, {rows, choice.virtual_stages, model.problem().micro_batches});
}

}  // namespace

double optimizer_bytes_of(const PlanProblem& problem, int parameter) {
  constexpr double kAdam = 8;
  const LayerParameter& known = problem.graph.parameters[static_cast<std::size_t>(parameter)];
  if (!known.trainable) return 0.0;
  return problem.optimizer_bytes.empty() ? kAdam * static_cast<double>(known.elements)
                                         : problem.optimizer_bytes[static_cast<std::size_t>(parameter)];
}

double value_bytes_of(const PlanProblem& problem, int parameter) {
  const LayerParameter& known = problem.graph.parameters[static_cast<std::size_t>(parameter)];
  return static_cast<double>(known.elements) *
         (known.element_bytes > 0 ? known.element_bytes : problem.parameter_bytes);
}

double state_bytes(const PlanProblem& problem, int first, int last) {
  double bytes = 0;
  for (std::size_t id = 0; id < problem.graph.parameters.size(); ++id) {
    const LayerParameter& parameter = problem.graph.parameters[id];
    const bool held = std::any_of(parameter.holders.begin(), parameter.holders.end(),
                                  [&](int layer) { return layer >= first && layer < last; });
    if (!held) continue;
    const int index = static_cast<int>(id);
    bytes += value_bytes_of(problem, index) + optimizer_bytes_of(problem, index);
    if (parameter.trainable) bytes += static_cast<double>(parameter.gradient_elements()) * problem.parameter_bytes;
  }
  return bytes;
}

int rows_of(const PlanProblem& problem, const PlanChoice& choice) {
  return static_cast<int>(choice.placement.empty() ? problem.workers.size() : choice.placement.size());
}

void set_replicas(PlanProblem& problem, const Replicas& replicas) {
  problem.replicas = replicas;
  problem.micro_batches = replicas.most_micro_batches();
}

std::vector<int> drop_idle(PlanProblem& problem, PlanChoice& choice) {
  if (choice.placement.empty()) return {};
  const std::set<int> used(choice.placement.begin(), choice.placement.end());
  std::vector<PlannedWorker> stay;
  std::vector<int> idle;
  std::map<int, int> number, rank;  // the new ones
  for (int worker = 0; worker < static_cast<int>(problem.workers.size()); ++worker) {
    if (!used.contains(worker)) {
      idle.push_back(worker);
      continue;
    }
    number[worker] = static_cast<int>(stay.size());
    stay.push_back(problem.workers[static_cast<std::size_t>(worker)]);
    int& of = stay.back().place.rank;
    of = rank.emplace(of, static_cast<int>(rank.size())).first->second;
  }
  if (idle.empty()) return idle;
  problem.workers = std::move(stay);
  for (int& worker : choice.placement) worker = number.at(worker);
  return idle;
}

Costs costs_of(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  return model.costs(choice, schedule_of_choice(model, choice));
}

Costs costs_of(const PlanProblem& problem, const PlanChoice& choice, const Schedule& schedule) {
  return CostModel(problem).costs(choice, schedule);
}

Program program_of(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  return model.program(choice, schedule_of_choice(model, choice));
}

Simulation judge(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  const Schedule schedule = schedule_of_choice(model, choice);
  return simulate(model.program(choice, schedule), model.costs(choice, schedule), 0);
}

}  // namespace lockstep
