// SPDX-License-Identifier: Apache-2.0
//
// What layers add up to: the layer graph, costs_of(), stage_bytes, the bounds of the search, and total_bytes.
#include <map>

#include "partitioner/cut_search.hpp"
#include "partitioner/placements.hpp"
#include "partitioner/stage_bytes.hpp"
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
  problem.layers = {layer_cost(1, 2, 3), layer_cost(10, 20, 30), layer_cost(100, 200, 300)};
  const std::vector<double> held = {1000, 2000, 4000};
  for (std::size_t i = 0; i < 3; ++i) {
    LayerCost& cost = problem.layers[i];
    cost.update_us = 8;
    cost.held_bytes = held[i];
    cost.again_held_bytes = held[i] / 100;
    cost.held_w_bytes = held[i] / 10;
  }
  problem.data_bytes = 7;
  problem.micro_batches = 2;
  equal_workers(problem, 2);
  return problem;
}

/// The numbers of extra_bytes as [F, B, I, W].
std::vector<double> numbers(const ExtraBytes& extra) {
  return {extra.forward, extra.backward, extra.input_grad, extra.weight_grad};
}

Simulation of_rows(const std::vector<std::vector<std::string>>& rows, int stages, int micro_batches, const Costs& costs,
                   LowerOptions options = {}) {
  return simulate(lower(schedule_of_rows(stages, micro_batches, rows), chain_topology(stages), options), costs);
}

}  // namespace

// ---- the layer graph ----

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

// ---- costs_of ----

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
  CHECK(costs.stages[0].held_bytes == 3000);
  CHECK(costs.stages[0].held_w_bytes == 300);
  CHECK(costs.stages[1].held_bytes == 4000 + 30 + 5);
  CHECK(costs.stages[0].checkpoint_bytes == 30 + 20);      // what b reads; what c reads is the other stage's
  CHECK(costs.stages[1].checkpoint_bytes == 40 + 30 + 5);  // what the loss reads is among what it keeps
  CHECK(costs.flow_bytes == std::vector<double>{35});      // c's input, and the targets
}

TEST_CASE("within a rank a value stays where it was made", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.workers[1].place.rank = 0;
  const Costs costs = costs_of(problem, {{2, 1}});
  CHECK(costs.stages[0].held_bytes == 3000);
  CHECK(costs.stages[1].held_bytes == 4000);
  CHECK(costs.stages[0].checkpoint_bytes == 30 + 20 + 30);
  CHECK(costs.stages[1].checkpoint_bytes == 40);
}

TEST_CASE("several stages of a worker hand values over too", "[unit][plan]") {
  PlanProblem problem = three_layers();
  equal_workers(problem, 1);
  const Costs costs = costs_of(problem, {{1, 2}, 2, "zbv", Recompute::never, {}});
  CHECK(costs.stages[1].held_bytes == 6000);
  CHECK(costs.stages[0].checkpoint_bytes == 10 + 20);
}

TEST_CASE("parameters stand once a worker, their gradients once a holder", "[unit][plan]") {
  PlanProblem problem = three_layers();
  const Costs apart = costs_of(problem, {{2, 1}});
  CHECK(apart.standing_bytes == std::vector<double>{12 * 12 + 7, 5 * 12});
  CHECK(apart.stages[0].gradient_bytes == 12 * 4);
  CHECK(apart.stages[1].gradient_bytes == 5 * 4);
  CHECK(apart.shared_bytes == std::vector<double>{20});
  CHECK(apart.update_us == std::vector<double>{16, 8});

  problem.clip = problem.post_validation = true;
  CHECK(costs_of(problem, {{2, 1}}).standing_bytes == std::vector<double>{2 * 12 * 12 + 7, 2 * 5 * 12});
  problem.clip = false;
  CHECK(costs_of(problem, {{2, 1}}).standing_bytes == apart.standing_bytes);  // without a norm nothing is amended

  equal_workers(problem, 1);
  problem.layers[1].step_bytes = 6;
  const Costs together = costs_of(problem, {{1, 2}, 2, "zbv", Recompute::never, {}});
  CHECK(together.standing_bytes == std::vector<double>{12 * 12 + 7 + 6});
  CHECK(together.stages[1].gradient_bytes == 9 * 4);
  CHECK(together.shared_bytes == std::vector<double>{40});  // both buffers would travel in one message
  CHECK(together.update_us == std::vector<double>{16});     // c has nothing of its own
}

TEST_CASE("frozen layers hold nothing; what a trained layer reads of them is held where it is read", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.graph.parameters[0].trainable = problem.graph.parameters[1].trainable = false;
  find_backwards(problem.graph);
  const Costs costs = costs_of(problem, {{2, 1}});
  CHECK(costs.stages[0].held_bytes == 2000 + 20);
  CHECK(costs.stages[0].input_grad_us == 20);
  CHECK(costs.stages[0].weight_grad_us == 30);
  CHECK(costs.stages[0].recompute_us == 10);
  CHECK(costs.stages[0].gradient_bytes == 16);
  CHECK(costs.stages[1].weight_grad_us == 0);
  CHECK(costs.stages[1].held_w_bytes == 0);
  CHECK(costs.standing_bytes == std::vector<double>{8 * 4 + 4 * 12 + 7, 5 * 4});
  CHECK(costs.shared_bytes.empty());

  const Costs frozen_first = costs_of(problem, {{1, 2}});
  CHECK(frozen_first.stages[0].held_bytes == 0);
  CHECK(frozen_first.stages[0].input_grad_us == 0);
  CHECK(frozen_first.stages[1].held_bytes == 6000 + 20 + 5);
  problem.workers[1].place.rank = 0;  // the maker lets go of it: the reader counts it
  CHECK(costs_of(problem, {{1, 2}}).stages[1].held_bytes == 6000 + 20);
}

TEST_CASE("layers that may not be run again keep what they hold", "[unit][plan]") {
  PlanProblem problem = three_layers();
  problem.layers[0].recomputable = false;
  const StageCost stage = costs_of(problem, {{2, 1}}).stages[0];
  CHECK(stage.checkpoint_bytes == 1000 + 20);  // a's output is part of the 1000
  CHECK(stage.recompute_us == 10);
}

TEST_CASE("a skip is held by everybody who reads it, and its gradients add up in the message", "[unit][plan]") {
  PlanProblem problem = chain_problem(4, 3, 1);
  problem.graph.values[2].readers = {1, 3, 3};  // layer 0's output, read twice by the last layer
  problem.value_bytes = {0, 0, 10, 100, 1000, 0};
  const Costs costs = costs_of(problem, {{1, 2, 1}});
  CHECK(costs.stages[1].held_bytes == 10);
  CHECK(costs.stages[2].held_bytes == 1010);
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

// ---- stage_bytes ----

TEST_CASE("a forward needs what the layers before keep and what the layer at work needs", "[unit][plan]") {
  LayerBytes a, b, c;
  a.held = 10, a.forward_extra = 100;
  b.held = 20, b.forward_extra = 95;
  c.held = 40, c.forward_extra = 30;
  CHECK(extra_bytes({a, b, c}, false).forward == 105);
  b.forward_extra = 50;
  CHECK(extra_bytes({a, b, c}, false).forward == 100);
  a.held = 0, a.made = 70, b.passed = 70;  // not kept: gone once b has read it
  CHECK(extra_bytes({a, b, c}, false).forward == 120);
}

TEST_CASE("a backward gives back layer by layer", "[unit][plan]") {
  LayerBytes a, b;
  a.held = 10, a.held_w = 3, a.input_grad_extra = 50, a.weight_grad_extra = 4, a.backward_extra = 40, a.gradients = 6;
  b.held = 30, b.held_w = 7, b.input_grad_extra = 8, b.weight_grad_extra = 9, b.backward_extra = 12, b.gradients = 11;
  a.output_gradients = b.input_gradients = 5;
  // B: of b 12; I of a: -30 + 5 + 50. I alone: what b keeps for W comes on top. W: 9.
  CHECK(numbers(extra_bytes({a, b}, false)) == std::vector<double>{10, 25, 32, 9});
  // The first time b ends with 11 bytes more, and needs 11 where the product needed 9.
  CHECK(numbers(extra_bytes({a, b}, true)) == std::vector<double>{10, 36, 32, 11});
  a.input_grad_extra = 20;
  CHECK(extra_bytes({a, b}, false).backward == -30 + 5 + 40);
  CHECK(extra_bytes({a, b}, true).backward == -30 + 5 + 40 + 11 + 2);
  b.backward_extra = 30;
  CHECK(extra_bytes({a, b}, false).backward == 30);
  CHECK(extra_bytes({a, b}, true).backward == 30 + 2);
  // What is kept for b's backward alone goes with it.
  b.backward_extra = 12, a.input_grad_extra = 50, b.released = 20;
  CHECK(numbers(extra_bytes({a, b}, false)) == std::vector<double>{10, 12, 12, 9});
}

TEST_CASE("what is run again comes back one layer at a time", "[unit][plan]") {
  LayerBytes a, b;
  a.again = b.again = true;
  a.held = 1, a.made_again = 100, a.input_grad_extra = 10, a.forward_extra = 105;
  b.held = 2, b.made_again = 200, b.input_grad_extra = 20, b.forward_extra = 215;
  CHECK(extra_bytes({a, b}, false).backward == 220);
  b.made_again = 0, b.forward_extra = 300;
  CHECK(extra_bytes({a, b}, false).input_grad == 300);
  LayerBytes loss;  // what it keeps goes before the layer is run again
  loss.again = true, loss.held = loss.loss_held = loss.loss_gradients = 40;
  loss.made_again = 50, loss.input_grad_extra = 60;
  CHECK(extra_bytes({loss}, false).backward == 70);
  loss.made_again = 5, loss.input_grad_extra = 6;
  CHECK(extra_bytes({loss}, false).backward == 40);
  a.input_grad_extra = 1000;
  CHECK(extra_bytes({a, loss}, false).backward == 100 + 1000 - 40);
}

TEST_CASE("layers without a backward are passed by", "[unit][plan]") {
  LayerBytes frozen, trained;
  frozen.has_backward = false, frozen.made = 20, frozen.forward_extra = 25;
  trained.held = 5, trained.input_grad_extra = 3, trained.released = 20, trained.forward_extra = 6;
  CHECK(numbers(extra_bytes({frozen, trained}, false)) == std::vector<double>{26, 3, 3, 0});
}

// ---- total_bytes ----

TEST_CASE("total bytes: standing, alive, gradients, and what runs", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(1);
  StageCost& stage = costs.stages[0];
  stage.held_bytes = 100;
  stage.gradient_bytes = 40;
  costs.standing_bytes = {1000};
  const auto total = [&](const std::vector<std::string>& row, LowerOptions options = {}) {
    return of_rows({row}, 1, 2, costs, options).total_bytes[0];
  };
  const std::vector<std::string> gpipe = {"0F0", "0F1", "0B0", "0B1"};
  CHECK(total(gpipe) == 1200);
  stage.extra.forward = 130;  // at 0F1
  CHECK(total(gpipe) == 1230);
  stage.extra.backward = 25;
  CHECK(total(gpipe) == 1230);
  stage.first_extra.backward = 50;  // at 0B0: two alive
  CHECK(total(gpipe) == 1250);
  stage.extra.backward = 115;  // at 0B1: one alive, and the gradients
  CHECK(total(gpipe) == 1255);
  stage.again_first_extra.backward = 300;
  CHECK(total(gpipe) == 1255);
  stage.checkpoint_bytes = 10;
  CHECK(total(gpipe, {.recompute = Recompute::always}) == 1000 + 20 + 300);
  stage.again_extra.backward = 500;
  CHECK(total(gpipe, {.recompute = Recompute::always}) == 1000 + 10 + 40 + 500);
  CHECK(of_rows({gpipe}, 1, 2, costs).peak_bytes[0] == 200);
}

TEST_CASE("total bytes: I leaves what W needs, W makes the gradients", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(1);
  StageCost& stage = costs.stages[0];
  stage.held_bytes = 100;
  stage.held_w_bytes = 30;
  stage.gradient_bytes = 40;
  const auto total = [&] { return of_rows({{"0F0", "0I0", "0F1", "0I1", "0W0", "0W1"}}, 1, 2, costs).total_bytes[0]; };
  CHECK(total() == 130);  // at 0F1
  stage.extra.input_grad = 9;
  CHECK(total() == 139);
  stage.first_extra.weight_grad = 90;  // at 0W0
  CHECK(total() == 150);
  stage.extra.weight_grad = 85;  // at 0W1
  CHECK(total() == 155);
}

TEST_CASE("total bytes: a gradient handed to another stage of the row waits for its B", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  costs.flow_bytes = {7};
  const auto total = [&](const std::vector<std::string>& row) {
    Schedule schedule = schedule_of_rows(2, 2, {row});
    Topology topology = chain_topology(2);
    return simulate(lower(schedule, topology, {}), costs);
  };
  CHECK(total({"0F0", "1F0", "1B0", "0B0", "0F1", "1F1", "1B1", "0B1"}).total_bytes[0] == 7);
  CHECK(total({"0F0", "1F0", "0F1", "1F1", "1B0", "1B1", "0B0", "0B1"}).total_bytes[0] == 14);
  CHECK(total({"0F0", "1F0", "0F1", "1F1", "1B0", "1B1", "0B0", "0B1"}).peak_bytes[0] == 0);
}

TEST_CASE("total bytes: within a rank no slot is posted, and a gradient is the receiver's", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  costs.flow_bytes = {7};
  const std::vector<std::vector<std::string>> rows = {{"0F0", "0F1", "0B0", "0B1"}, {"1F0", "1F1", "1B0", "1B1"}};
  CHECK(of_rows(rows, 2, 2, costs).total_bytes == std::vector<double>{14, 14});  // one used, the next one posted
  costs.places = {{0, 0}, {0, 0}};
  CHECK(of_rows(rows, 2, 2, costs).total_bytes == std::vector<double>{7, 0});
}

TEST_CASE("total bytes: a tie's sum takes the first buffer's place, or stands beside it", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  for (StageCost& stage : costs.stages) stage.gradient_bytes = 10;
  costs.shared_bytes = {10};
  Topology topology = chain_topology(2);
  topology.shared.push_back({{StageId(0), StageId(1)}});
  const auto total = [&](LowerOptions options = {}) {
    return simulate(lower(make_schedule("gpipe", {2, 1, 1}), topology, options), costs).total_bytes;
  };
  CHECK(total() == std::vector<double>{10 + 10 + 10, 10 + 10 + 20});  // gradient, slot, sum
  costs.places = {{0, 0}, {0, 0}};
  CHECK(total() == std::vector<double>{10 + 20, 10 + 20});
}

TEST_CASE("negative bytes are refused by name", "[unit][plan]") {
  Costs costs = equal_costs(1, 1, 1, 1);
  costs.stages[0].gradient_bytes = -1;
  CHECK(contains(error_of<UserError>([&] { simulate(lowered("1f1b", 1, 1), costs); }), "gradient_bytes is -1"));
  costs.stages[0].gradient_bytes = 0;
  costs.stages[0].again_extra.weight_grad = -2;
  CHECK(contains(error_of<UserError>([&] { simulate(lowered("1f1b", 1, 1), costs); }), "extra bytes is -2"));
}

// ---- bounds ----

TEST_CASE("no simulation is below a bound of the search", "[unit][plan]") {
  std::mt19937 random(21);
  long tight_times = 0, plans = 0;
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {6, 3, 4, trial % 2 == 0});
    const CostModel model(problem);
    LayerRuns runs(model, false), several(model, true);
    const int rows = model.workers() - (trial % 4 == 3 && model.workers() > 1 ? 1 : 0);  // one is idle now and then
    each_choice(problem, rows, false, [&](const PlanChoice& choice) {
      const Schedule schedule = make_schedule(choice.schedule, {rows, choice.virtual_stages, problem.micro_batches});
      const ScheduleFacts facts(schedule, choice.recompute);
      CutSearch search(choice.virtual_stages > 1 ? several : runs, facts, choice.placement);
      const Simulation simulation = judge(problem, choice);
      const double us = search.bound(Goal::fastest, choice.layers_per_stage);
      const double bytes = search.bound(Goal::smallest, choice.layers_per_stage);
      ++plans;
      tight_times += us >= 0.999 * simulation.period_us ? 1 : 0;
      if (us > simulation.period_us * (1 + 1e-9) || bytes > most_bytes(simulation)) {
        CAPTURE(choice.schedule, join(choice.layers_per_stage), static_cast<int>(choice.recompute), us,
                simulation.period_us, bytes, most_bytes(simulation));
        FAIL("a bound that is none");
      }
    });
  }
  CHECK(plans > 1000);
  CHECK(2 * tight_times > plans);  // and most are the truth itself
}

TEST_CASE("with one stage a worker and no tie the bound of bytes is what the simulator finds", "[unit][plan]") {
  std::mt19937 random(22);
  for (int trial = 0; trial < 60; ++trial) {
    PlanProblem problem = random_problem(random, {6, 3, 4, false});
    if (problem.graph.parameters.size() > problem.layers.size()) problem.graph.parameters.pop_back();
    for (LayerValue& value : problem.graph.values) {  // messages of the same size both ways
      if (value.producer < 0) value.readers = {0};
      value.readers.resize(1);
    }
    for (LayerParameter& parameter : problem.graph.parameters) parameter.trainable = true;
    find_backwards(problem.graph);
    const CostModel model(problem);
    LayerRuns runs(model, false);
    each_choice(problem, model.workers(), false, [&](const PlanChoice& choice) {
      if (choice.virtual_stages > 1) return;
      const Schedule schedule = make_schedule(choice.schedule, {model.workers(), 1, problem.micro_batches});
      const ScheduleFacts facts(schedule, choice.recompute);
      CutSearch search(runs, facts, choice.placement);
      const double bytes = search.bound(Goal::smallest, choice.layers_per_stage);
      const Simulation simulation = judge(problem, choice);
      if (std::abs(bytes - most_bytes(simulation)) > 1e-6) {
        CAPTURE(trial, choice.schedule, join(choice.layers_per_stage), static_cast<int>(choice.recompute), bytes,
                most_bytes(simulation));
        FAIL("the bound is not exact");
      }
    });
  }
}

TEST_CASE("the dynamic program finds the best bottleneck within the limits", "[unit][plan]") {
  std::mt19937 random(23);
  for (int trial = 0; trial < 100; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {9, 4, 3, true});
    const CostModel model(problem);
    LayerRuns runs(model, false);
    const int workers = model.workers();
    const ScheduleFacts facts(make_schedule("1f1b", {workers, 1, problem.micro_batches}), Recompute::except_last);
    std::vector<int> placement(static_cast<std::size_t>(workers));
    std::iota(placement.begin(), placement.end(), 0);
    CutSearch search(runs, facts, placement);
    for (const Goal goal : {Goal::fastest, Goal::smallest}) {
      double best = std::numeric_limits<double>::infinity();
      each_cut(model.layers(), workers, [&](const std::vector<int>& counts) {
        double worst = 0;
        const std::vector<int> first = first_layers(counts);
        for (int s = 0; s < workers; ++s)
          worst = std::max(worst, search.stage_bound(goal, s, first[static_cast<std::size_t>(s)],
                                                     first[static_cast<std::size_t>(s) + 1]));
        if (goal == Goal::smallest || search.may_fit(counts)) CHECK(worst <= search.bound(goal, counts) * (1 + 1e-12));
        best = std::min(best, worst);
      });
      const double found = search.least_bound(goal);
      if (std::isinf(best)) {
        CHECK(std::isinf(found));
        CHECK(search.best_bottleneck(goal).empty());
      } else {
        CHECK(found == Approx(best).epsilon(1e-9));
      }
    }
  }
}

// ---- placements ----

TEST_CASE("a choice without its idle workers costs the same", "[unit][plan]") {
  std::mt19937 random(24);
  for (int trial = 0; trial < 20; ++trial) {
    PlanProblem problem = random_problem(random, {6, 4, 4, true});
    const int workers = static_cast<int>(problem.workers.size());
    if (workers < 3) continue;
    PlanChoice choice{{1, problem.graph.layers() - 1}, 1, "1f1b", Recompute::never, {workers - 1, 0}};
    const Simulation before = judge(problem, choice);
    const std::vector<int> idle = drop_idle(problem, choice);
    CHECK(idle.size() == static_cast<std::size_t>(workers - 2));
    CHECK(idle.front() == 1);
    CHECK(choice.placement == std::vector<int>{1, 0});
    CHECK(problem.workers[0].place.rank == 0);
    CHECK(problem.workers[1].place.rank <= 1);
    const Simulation after = judge(problem, choice);
    CHECK(after.period_us == before.period_us);
    CHECK(after.total_bytes == before.total_bytes);
    CHECK(drop_idle(problem, choice).empty());
  }
}

TEST_CASE("interchangeable workers are not permuted", "[unit][plan]") {
  const auto count = [](const std::vector<PlannedWorker>& workers) {
    return placements_of(workers, static_cast<int>(workers.size())).list.size();
  };
  PlannedWorker worker, slow, other_host;
  slow.speed = 0.5;
  std::vector<PlannedWorker> four(4, worker);
  for (int i = 0; i < 4; ++i) four[static_cast<std::size_t>(i)].place.rank = i;
  CHECK(count(four) == 1);
  four[2].speed = 0.5;
  CHECK(count(four) == 4);
  four[2].speed = 1;
  four[2].place.host = four[3].place.host = 1;  // which of them are neighbours
  CHECK(count(four) == 3);
  std::vector<PlannedWorker> many(8, worker);
  for (int i = 0; i < 8; ++i) many[static_cast<std::size_t>(i)].place.rank = i;
  CHECK(count(many) == 1);
  CHECK(placements_of(many, 8).all);
  many[1].speed = 2;
  CHECK(count(many) == 3);  // in order, the fast one first, the fast one last
  CHECK_FALSE(placements_of(many, 8).all);
}

TEST_CASE("idle are the last workers of the fullest ranks, the slowest or the smallest", "[unit][plan]") {
  std::vector<PlannedWorker> eight(8);
  for (int i = 0; i < 8; ++i) eight[static_cast<std::size_t>(i)].place.rank = i / 4;
  CHECK(placements_of(eight, 6).list.front() == std::vector<int>{0, 1, 2, 4, 5, 6});
  CHECK(placements_of(eight, 5).list.front() == std::vector<int>{0, 1, 2, 4, 5});
  eight[1].speed = 0.5;
  eight[6].limit_bytes = 1000;
  const std::vector<std::vector<int>> some = placements_of(eight, 7).list;
  CHECK(std::count(some.begin(), some.end(), std::vector<int>{0, 2, 3, 4, 5, 6, 7}) == 1);
  CHECK(std::count(some.begin(), some.end(), std::vector<int>{0, 1, 2, 3, 4, 5, 7}) == 1);
  CHECK_FALSE(placements_of(eight, 7).all);

  std::vector<PlannedWorker> three(3);  // every choice of few: of equals one, of different ones all
  for (int i = 0; i < 3; ++i) three[static_cast<std::size_t>(i)].place.rank = i;
  CHECK(placements_of(three, 2).list.size() == 1);
  three[1].speed = 0.5;
  CHECK(placements_of(three, 1).list.size() == 2);
  CHECK(placements_of(three, 2).list.size() == 3);
}
