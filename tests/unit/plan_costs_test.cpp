// SPDX-License-Identifier: Apache-2.0
//
// What layers add up to: the layer graph, and costs_of().
#include <map>

#include "runtime/schedule/validate.hpp"
#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Layers a, b, c; the data (10 bytes) goes to a, the targets (5) to the loss at c; a and c share a parameter.
PlanProblem three_layers() {
  PlanProblem problem;
  LayerGraph& graph = problem.graph;
  graph.names = {"a", "b", "c"};
  graph.values = {{-1, {0}, false}, {-1, {2}, false}, {0, {1}, false}, {1, {2}, false}, {2, {2}, false}};
  graph.parameters = {{{0}, true, 3}, {{0, 2}, true, 5}, {{1}, true, 4}};
  find_backwards(graph);
  problem.value_bytes = {10, 5, 20, 30, 40};
  problem.layers["cpu"] = {layer_cost(1, 2, 3), layer_cost(10, 20, 30), layer_cost(100, 200, 300)};
  const std::vector<double> held = {1000, 2000, 4000};
  for (std::size_t i = 0; i < 3; ++i) {
    LayerCost& cost = problem.layers["cpu"][i];
    cost.update_us = 8;
    cost.activation_bytes = held[i];
    cost.recompute_activation_bytes = held[i] / 100;
    cost.weight_grad_bytes = held[i] / 10;
  }
  problem.data_bytes = 7;
  problem.micro_batches = 2;
  equal_workers(problem, 2);
  return problem;
}

}  // namespace

TEST_CASE("a layer belongs to the stage that begins at or before it", "[unit][plan]") {
  const std::vector<int> first = first_layers({2, 1, 3});
  CHECK(first == std::vector<int>{0, 2, 3, 6});
  std::vector<int> stages;
  for (int layer = 0; layer < 6; ++layer) stages.push_back(stage_of_layer(first, layer).value());
  CHECK(stages == std::vector<int>{0, 0, 1, 2, 2, 2});
}

TEST_CASE("values travel once to each stage that reads them, with a gradient where they have one", "[unit][plan]") {
  LayerGraph graph;
  graph.names = {"a", "b", "c", "d"};
  graph.values = {{-1, {0, 3}, false}, {0, {1, 2, 3, 3}, true}, {1, {2}, true}, {2, {3}, false}, {0, {2}, false}};
  graph.parameters = {{{0, 3}, true, 1}, {{1, 2}, false, 1}, {{1}, true, 1}};
  graph.trainable = {true, true, false, true};
  graph.has_backward = {true, true, false, true};
  const auto flows = flows_of(graph, first_layers({1, 1, 1, 1}));
  std::map<std::pair<int, int>, std::pair<std::vector<int>, bool>> found;
  for (const FlowValues& flow : flows)
    found[{flow.flow.from.value(), flow.flow.to.value()}] = {flow.values, flow.flow.differentiable};
  CHECK(found == decltype(found){{{0, 1}, {{1}, true}},
                                 {{0, 2}, {{1, 4}, true}},
                                 {{0, 3}, {{0, 1}, true}},
                                 {{1, 2}, {{2}, true}},
                                 {{2, 3}, {{3}, false}}});
  const Topology topology = topology_of(graph, first_layers({2, 2}));
  CHECK(topology.stages == 2);
  CHECK(topology.has_backward == std::vector<bool>{true, true});
  CHECK(topology.has_weight_grad == std::vector<bool>{true, true});
  REQUIRE(topology.flows.size() == 1);
  REQUIRE(topology.shared.size() == 1);  // a frozen parameter is no tie
  CHECK(topology.shared[0].holders == std::vector<StageId>{StageId(0), StageId(1)});
  CHECK(topology_of(graph, first_layers({1, 1, 1, 1})).has_weight_grad == std::vector<bool>{true, true, false, true});
}

TEST_CASE("a stage takes as long as its layers, on the worker that runs its row", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.workers[0].speed = 0.5;
  problem.workers[1].speed = 2;
  const Costs costs = costs_of(problem, {{2, 1}, 1, "1f1b", Recompute::never, {1, 0}});
  CHECK(costs.stages[0].forward_us == 11 / 2.0);
  CHECK(costs.stages[0].input_grad_us == 22 / 2.0);
  CHECK(costs.stages[0].weight_grad_us == 33 / 2.0);
  CHECK(costs.stages[0].recompute_us == 11 / 2.0);
  CHECK(costs.stages[1].forward_us == 200);
  CHECK(costs.stages[1].weight_grad_us == 600);
  CHECK(costs.update_us == std::vector<double>{8, 16});
  CHECK(costs.places == std::vector<WorkerPlace>{{1, 0}, {0, 0}});
}

TEST_CASE("a stage holds what its layers hold and what it has received", "[unit][plan]") {
  const Costs costs = costs_of(three_layers(), {{2, 1}});
  CHECK(costs.stages[0].activation_bytes == 3000);
  CHECK(costs.stages[0].weight_grad_bytes == 300);
  CHECK(costs.stages[1].activation_bytes == 4000 + 30 + 5);
  CHECK(costs.stages[0].recompute_activation_bytes == 30 + 20);      // what b reads; what c reads is the other stage's
  CHECK(costs.stages[1].recompute_activation_bytes == 40 + 30 + 5);  // what the loss reads is among what it keeps
  CHECK(costs.flow_bytes == std::vector<double>{35});                // c's input, and the targets
}

TEST_CASE("within a rank a value stays where it was made", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.workers[1].place.rank = 0;
  const Costs costs = costs_of(problem, {{2, 1}});
  CHECK(costs.stages[0].activation_bytes == 3000);
  CHECK(costs.stages[1].activation_bytes == 4000);
  CHECK(costs.stages[0].recompute_activation_bytes == 30 + 20 + 30);
  CHECK(costs.stages[1].recompute_activation_bytes == 40);
}

TEST_CASE("several stages of a worker hand values over too", "[unit][plan]") {
  PlanProblem problem = three_layers();
  equal_workers(problem, 1);
  const Costs costs = costs_of(problem, {{1, 2}, 2, "zbv", Recompute::never, {}});
  CHECK(costs.stages[1].activation_bytes == 6000);
  CHECK(costs.stages[0].recompute_activation_bytes == 10 + 20);
}

TEST_CASE("parameters stand once a worker, their gradients once a holder", "[unit][plan]") {
  PlanProblem problem = three_layers();
  const Costs apart = costs_of(problem, {{2, 1}});
  CHECK(apart.resident_bytes == std::vector<double>{12 * 12 + 7, 5 * 12});
  CHECK(apart.stages[0].gradient_bytes == 12 * 4);
  CHECK(apart.stages[1].gradient_bytes == 5 * 4);
  CHECK(apart.shared_bytes == std::vector<double>{20});
  CHECK(apart.update_us == std::vector<double>{16, 8});

  problem.clip = problem.post_validation = true;
  CHECK(costs_of(problem, {{2, 1}}).resident_bytes == std::vector<double>{2 * 12 * 12 + 7, 2 * 5 * 12});
  problem.clip = false;
  CHECK(costs_of(problem, {{2, 1}}).resident_bytes == apart.resident_bytes);  // without a norm nothing is amended

  equal_workers(problem, 1);
  problem.layers["cpu"][1].step_bytes = 6;
  const Costs together = costs_of(problem, {{1, 2}, 2, "zbv", Recompute::never, {}});
  CHECK(together.resident_bytes == std::vector<double>{12 * 12 + 7 + 6});
  CHECK(together.stages[1].gradient_bytes == 9 * 4);
  CHECK(together.shared_bytes == std::vector<double>{40});  // both buffers would travel in one message
  CHECK(together.update_us == std::vector<double>{16});     // c has nothing of its own
}

TEST_CASE("what the optimizer keeps beside each parameter stands with it", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.optimizer_bytes = {100, 7, 0};
  CHECK(costs_of(problem, {{2, 1}}).resident_bytes == std::vector<double>{12 * 4 + 107 + 7, 5 * 4 + 7});
  CHECK(state_bytes(problem, 0, 2) == 12 * 8 + 107);
  CHECK(state_bytes(problem, 2, 3) == 5 * 8 + 7);
  problem.graph.parameters[1].trainable = false;
  CHECK(state_bytes(problem, 2, 3) == 5 * 4);
  problem.optimizer_bytes.pop_back();
  CHECK_THROWS_WITH(costs_of(problem, {{2, 1}}), Catch::Contains("bytes of 2 parameters, the model has 3"));
}

TEST_CASE("frozen layers hold nothing; what a trained layer reads of them is held where it is read", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.graph.parameters[0].trainable = problem.graph.parameters[1].trainable = false;
  find_backwards(problem.graph);
  const Costs costs = costs_of(problem, {{2, 1}});
  CHECK(costs.stages[0].activation_bytes == 2000 + 20);
  CHECK(costs.stages[0].input_grad_us == 20);
  CHECK(costs.stages[0].weight_grad_us == 30);
  CHECK(costs.stages[0].recompute_us == 10);
  CHECK(costs.stages[0].gradient_bytes == 16);
  CHECK(costs.stages[1].weight_grad_us == 0);
  CHECK(costs.stages[1].weight_grad_bytes == 0);
  CHECK(costs.resident_bytes == std::vector<double>{8 * 4 + 4 * 12 + 7, 5 * 4});
  CHECK(costs.shared_bytes.empty());

  const Costs frozen_first = costs_of(problem, {{1, 2}});
  CHECK(frozen_first.stages[0].activation_bytes == 0);
  CHECK(frozen_first.stages[0].input_grad_us == 0);
  CHECK(frozen_first.stages[1].activation_bytes == 6000 + 20 + 5);
  problem.workers[1].place.rank = 0;  // the maker lets go of it: the reader counts it
  CHECK(costs_of(problem, {{1, 2}}).stages[1].activation_bytes == 6000 + 20);
}

TEST_CASE("layers that may not be run again keep what they hold", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.layers["cpu"][0].recomputable = false;
  const StageCost stage = costs_of(problem, {{2, 1}}).stages[0];
  CHECK(stage.recompute_activation_bytes == 1000 + 20);  // a's output is part of the 1000
  CHECK(stage.recompute_us == 10);
}

TEST_CASE("a skip is held by everybody who reads it, and its gradients add up in the message", "[unit][plan]") {
  PlanProblem problem = chain_problem(4, 3, 1);
  problem.graph.values[2].readers = {1, 3, 3};  // layer 0's output, read twice by the last layer
  problem.value_bytes = {0, 0, 10, 100, 1000, 0};
  const Costs costs = costs_of(problem, {{1, 2, 1}});
  CHECK(costs.stages[1].activation_bytes == 10);
  CHECK(costs.stages[2].activation_bytes == 1010);
  const Topology topology = topology_of(problem.graph, first_layers({1, 2, 1}));
  REQUIRE(topology.flows.size() == 3);
  CHECK(costs.flow_bytes == std::vector<double>{10, 20, 1000});  // 0->1, 0->2, 1->2
}

TEST_CASE("choices that do not fit are refused", "[unit][plan]") {
  const PlanProblem problem = three_layers();
  const auto error = [&](const PlanChoice& choice) { return error_of<UserError>([&] { costs_of(problem, choice); }); };
  CHECK(contains(error({{2, 2}}), "has 4 layers in 2 stages; the model has 3 layers"));
  CHECK(contains(error({{3, 0}}), "every stage needs at least one"));
  CHECK(contains(error({{1, 1, 1}}), "got 3 stages for 2 workers with 1 stages each, expected 2"));
  CHECK(contains(error({{2, 1}, 1, "1f1b", Recompute::never, {0, 2}}), "expected each of 0 to 1 at most once"));
  CHECK(contains(error_of<ScheduleError>([&] { judge(problem, {{2, 1}, 1, "zbv"}); }), "virtual_stages = 2"));
}

TEST_CASE("the program of a choice is valid, with all that the problem asks for", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.clip = problem.post_validation = true;
  const Program program = program_of(problem, {{2, 1}, 1, "zb_h1", Recompute::always, {}});
  CHECK(validate(program).empty());
  CHECK(program.clip);
  CHECK(program.post_validation);
  CHECK(program.recompute == Recompute::always);
  CHECK(program.topology.shared.size() == 1);
  CHECK(program.workers() == 2);
}
