// SPDX-License-Identifier: Apache-2.0
//
// What the planner's tests share: small models, and every choice that there is.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "partitioner/make_plan.hpp"
#include "tests/unit/schedule_support.hpp"

namespace lockstep::test {

inline LayerCost layer_cost(double forward_us, double input_grad_us, double weight_grad_us) {
  LayerCost cost;
  cost.forward_us = forward_us;
  cost.input_grad_us = input_grad_us;
  cost.weight_grad_us = weight_grad_us;
  return cost;
}

/// Which values have gradients and which layers a backward, from which parameters are trained.
inline void find_backwards(LayerGraph& graph) {
  graph.trainable.assign(graph.names.size(), false);
  graph.has_backward.assign(graph.names.size(), false);
  for (const LayerParameter& parameter : graph.parameters)
    for (const int layer : parameter.holders)
      if (parameter.trainable) graph.trainable[static_cast<std::size_t>(layer)] = true;
  for (int layer = 0; layer < graph.layers(); ++layer) {
    bool backward = graph.trainable[static_cast<std::size_t>(layer)];
    for (const LayerValue& value : graph.values)
      if (value.has_gradient && value.producer < layer)
        backward = backward || std::count(value.readers.begin(), value.readers.end(), layer) > 0;
    graph.has_backward[static_cast<std::size_t>(layer)] = backward;
    for (LayerValue& value : graph.values)
      if (value.producer == layer) value.has_gradient = backward;
  }
}

inline void equal_workers(PlanProblem& problem, int workers) {
  problem.workers.assign(static_cast<std::size_t>(workers), PlannedWorker{});
  for (int i = 0; i < workers; ++i) problem.workers[static_cast<std::size_t>(i)].place.rank = i;
}

/// The data and the targets are values 0 and 1; layer k makes value k + 2, which the next one reads, or the loss. One
/// parameter a layer. Everything costs 1 us a direction and no bytes.
inline PlanProblem chain_problem(int layers, int workers, int micro_batches) {
  PlanProblem problem;
  problem.graph.values.push_back({-1, {0}, false});
  problem.graph.values.push_back({-1, {layers - 1}, false});
  for (int layer = 0; layer < layers; ++layer) {
    problem.graph.names.push_back(concat("layer", layer));
    problem.graph.values.push_back({layer, {std::min(layer + 1, layers - 1)}, false});
    problem.graph.parameters.push_back({{layer}, true, 0});
  }
  find_backwards(problem.graph);
  problem.layers["cpu"].assign(static_cast<std::size_t>(layers), layer_cost(1, 1, 1));
  problem.value_bytes.assign(problem.graph.values.size(), 0.0);
  problem.micro_batches = micro_batches;
  equal_workers(problem, workers);
  return problem;
}

struct RandomShape {
  int most_layers = 10, most_workers = 4, most_micro_batches = 4;
  bool unequal = false;  ///< speeds, limits, places
};

/// Skips, ties, frozen layers, a slow link now and then. All bytes are whole numbers.
inline PlanProblem random_problem(std::mt19937& random, const RandomShape& shape) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto chance = [&](int percent) { return below(100) < percent; };
  const int workers = 1 + below(shape.most_workers);
  const int layers = std::max(workers, 1 + below(shape.most_layers));
  PlanProblem problem = chain_problem(layers, workers, 1 + below(shape.most_micro_batches));
  LayerGraph& graph = problem.graph;
  for (int skip = below(3); skip > 0 && layers > 2; --skip) {
    const int from = below(layers), to = below(layers);
    if (from < to) graph.values[static_cast<std::size_t>(from + 2)].readers.push_back(to);
  }
  for (LayerValue& value : graph.values) std::sort(value.readers.begin(), value.readers.end());
  for (int layer = 0; layer < layers; ++layer) {
    LayerParameter& parameter = graph.parameters[static_cast<std::size_t>(layer)];
    parameter.elements = below(20);
    parameter.trainable = layer == layers - 1 || !chance(25);
  }
  if (chance(40)) graph.parameters.push_back({{0, layers - 1}, chance(80), below(20)});
  find_backwards(graph);
  if (chance(20)) {  // a mask: made by a layer, without a gradient
    graph.values.push_back({below(layers), {layers - 1}, false});
    if (graph.values.back().producer == layers - 1) graph.values.pop_back();
  }
  problem.value_bytes.clear();
  for (std::size_t id = 0; id < graph.values.size(); ++id) problem.value_bytes.push_back(below(30));
  for (LayerCost& cost : problem.layers["cpu"]) {
    cost = layer_cost(1 + below(50), 1 + below(50), below(50));
    cost.update_us = below(5);
    cost.activation_bytes = below(100);
    cost.recompute_activation_bytes = below(1 + static_cast<int>(cost.activation_bytes));
    cost.weight_grad_bytes = below(40);
    cost.step_bytes = chance(20) ? below(10) : 0;
    cost.forward_workspace_bytes = cost.activation_bytes + below(30);
    cost.input_grad_workspace_bytes = below(60);
    cost.weight_grad_workspace_bytes = below(60);
    cost.backward_workspace_bytes = cost.weight_grad_bytes + cost.weight_grad_workspace_bytes;
    cost.recomputable = !chance(20);
  }
  problem.data_bytes = below(50);
  problem.clip = chance(40);
  problem.post_validation = chance(30);
  if (chance(40)) {
    problem.links.same_host = {static_cast<double>(below(20)), 1.0 + below(10)};
    problem.links.other_host = {static_cast<double>(below(40)), 1.0 + below(3)};
  }
  if (!shape.unequal) return problem;
  for (PlannedWorker& worker : problem.workers) {
    if (chance(50)) worker.speed = 0.5 + 0.25 * below(4);
    if (chance(50)) worker.limit_bytes = 400 + below(1500);
    if (chance(30)) worker.place.host = 1;
    if (chance(30) && worker.place.host == 0) worker.place.rank = 0;
  }
  if (!chance(30)) return problem;
  for (LayerCost cost : problem.layers["cpu"]) {  // some workers are on devices, which are better at some layers
    for (double* us : {&cost.forward_us, &cost.input_grad_us, &cost.weight_grad_us}) *us = below(60);
    cost.activation_bytes += below(20);
    cost.step_bytes = below(10);
    problem.layers["gpu"].push_back(cost);
  }
  for (PlannedWorker& worker : problem.workers) {
    if (chance(40)) continue;
    worker.kind = "gpu";
    worker.place.device = chance(50) ? "gpu:0" : "gpu:1";
  }
  problem.links.to_device = {static_cast<double>(below(10)), 2.0 + below(10)};
  problem.links.to_host = {static_cast<double>(below(10)), 2.0 + below(10)};
  return problem;
}

/// Every cut of `layers` into `stages`.
inline void each_cut(int layers, int stages, const std::function<void(const std::vector<int>&)>& call) {
  std::vector<int> counts;
  const std::function<void(int)> extend = [&](int left) {
    if (static_cast<int>(counts.size()) == stages - 1) {
      counts.push_back(left);
      call(counts);
      counts.pop_back();
      return;
    }
    const int more = stages - 1 - static_cast<int>(counts.size());
    for (int count = 1; count + more <= left; ++count) {
      counts.push_back(count);
      extend(left - count);
      counts.pop_back();
    }
  };
  if (stages <= layers) extend(layers);
}

/// The workers of `rows` rows: the first ones in order, or in every order that there is of them.
inline std::vector<std::vector<int>> every_placement(const PlanProblem& problem, int rows, bool placements) {
  std::vector<int> order(problem.workers.size());
  std::iota(order.begin(), order.end(), 0);
  std::set<std::vector<int>> all;
  do all.insert({order.begin(), order.begin() + rows});
  while (placements && std::next_permutation(order.begin(), order.end()));
  return {all.begin(), all.end()};
}

/// Every choice that the planner has with `rows` of its workers, without asking it: cuts x virtual stages x schedules x
/// recompute x placements.
inline void each_choice(const PlanProblem& problem, int rows, bool placements,
                        const std::function<void(const PlanChoice&)>& call) {
  const std::vector<std::vector<int>> all = every_placement(problem, rows, placements);
  for (const ScheduleGenerator& generator : schedule_generators()) {
    for (const int virtual_stages : {1, 2, 4}) {
      if (!is_legal(generator, {rows, virtual_stages, problem.micro_batches})) continue;
      each_cut(problem.graph.layers(), rows * virtual_stages, [&](const std::vector<int>& counts) {
        for (const Recompute recompute : {Recompute::never, Recompute::except_last, Recompute::always})
          for (const std::vector<int>& placement : all)
            call({counts, virtual_stages, generator.name, recompute, placement});
      });
    }
  }
}

inline double most_bytes(const Simulation& simulation) {
  return *std::max_element(simulation.total_bytes.begin(), simulation.total_bytes.end());
}

inline bool fits(const PlanProblem& problem, const PlanChoice& choice, const Simulation& simulation) {
  for (std::size_t row = 0; row < choice.placement.size(); ++row)
    if (simulation.total_bytes[row] > problem.workers[static_cast<std::size_t>(choice.placement[row])].limit_bytes)
      return false;
  return true;
}

/// Less than 0: a is better. By period, step, workers, bytes; equal but for rounding is equal.
inline int compare(const Simulation& a, const Simulation& b) {
  const auto sign = [](double x, double y) { return std::abs(x - y) <= 1e-9 * std::abs(y) ? 0 : x < y ? -1 : 1; };
  const auto workers = [](const Simulation& s) { return static_cast<double>(s.total_bytes.size()); };
  for (const int order : {sign(a.period_us, b.period_us), sign(a.step_us, b.step_us), sign(workers(a), workers(b)),
                          sign(most_bytes(a), most_bytes(b))})
    if (order != 0) return order;
  return 0;
}

}  // namespace lockstep::test
