// SPDX-License-Identifier: Apache-2.0
//
// Plans over workers on unlike devices: each with the costs of its own.
#include "partitioner/placements.hpp"
#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Worker 0 is on a device that is four times as fast, worker 1 on the host of the same rank.
PlanProblem fast_and_slow(int layers, int micro_batches) {
  PlanProblem problem = chain_problem(layers, 2, micro_batches);
  problem.layers["gpu"] = problem.layers["cpu"];
  for (LayerCost& cost : problem.layers["cpu"]) cost = layer_cost(4, 4, 4);
  problem.workers[0] = {.place = {0, 0, "gpu:0"}, .kind = "gpu"};
  problem.workers[1].place.rank = 0;
  return problem;
}

PlanScope only(const std::string& schedule, std::vector<int> placement = {}) {
  PlanScope scope;
  scope.schedules = {schedule};
  scope.virtual_stages = {1};
  scope.recomputes = {Recompute::never};
  scope.placement = std::move(placement);
  return scope;
}

}  // namespace

TEST_CASE("a stage costs what its layers cost on the device of its worker", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(4, 2);
  problem.layers["gpu"][0].update_us = 3;
  problem.layers["cpu"][3].update_us = 5;
  problem.layers["cpu"][3].step_bytes = 7;
  problem.workers[1].speed = 2;
  const Costs costs = costs_of(problem, {{3, 1}});
  CHECK(costs.stages[0].forward_us == 3);
  CHECK(costs.stages[0].weight_grad_us == 3);
  CHECK(costs.stages[1].input_grad_us == 2);  // 4 at speed 2
  CHECK(costs.update_us == std::vector<double>{3, 2.5});
  CHECK(costs.resident_bytes == std::vector<double>{0, 7});
  const Costs turned = costs_of(problem, {{3, 1}, 1, "1f1b", Recompute::never, {1, 0}});
  CHECK(turned.stages[0].forward_us == 6);
  CHECK(turned.stages[1].forward_us == 1);
}

TEST_CASE("the faster device gets more layers, as many as make both equally busy", "[unit][plan]") {
  const PlanResult result = make_plan(fast_and_slow(8, 4), only("1f1b", {0, 1}));
  REQUIRE(result.fits());
  CHECK(result.exact);
  CHECK(result.best().choice.layers_per_stage == std::vector<int>{7, 1});
  CHECK(result.best().simulated.work_us == std::vector<double>{4 * 7 * 3, 4 * 1 * 12});
  PlanProblem alike = fast_and_slow(8, 4);
  for (PlannedWorker& worker : alike.workers) worker.kind = "cpu";
  CHECK(make_plan(alike, only("1f1b", {0, 1})).best().choice.layers_per_stage == std::vector<int>{4, 4});
}

TEST_CASE("layers go to the device that is good at them", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(4, 4);
  problem.layers["cpu"][0] = layer_cost(1, 1, 1);
  problem.layers["gpu"][0] = layer_cost(20, 20, 20);
  const PlanResult result = make_plan(problem, only("1f1b"));
  CHECK(result.best().choice.placement == std::vector<int>{1, 0});
  CHECK(result.best().choice.layers_per_stage == std::vector<int>{1, 3});
  CHECK(result.exact);
}

TEST_CASE("a worker whose device has too little memory gets fewer layers", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(8, 4);
  for (auto& [kind, layers] : problem.layers)
    for (LayerCost& cost : layers) cost.step_bytes = kind == "gpu" ? 100 : 10;
  problem.workers[0].limit_bytes = 300;
  CHECK(make_plan(problem, only("1f1b", {0, 1})).best().choice.layers_per_stage == std::vector<int>{3, 5});
}

TEST_CASE("a message is copied to the memory of another device, and goes through the host to another rank",
          "[unit][plan]") {
  Links links;
  links.same_rank = {1};
  links.same_host = {5, 100, 0.5};
  links.to_device = {10, 50};
  links.to_host = {20, 25};
  links.between_devices = {30, 200};
  const WorkerPlace host{0, 0}, card{0, 0, "gpu:0"}, other_card{0, 0, "gpu:1"}, other_rank{1, 0, "gpu:0"};
  CHECK(links.between(host, host) == LinkCost{1});
  CHECK(links.between(card, card) == LinkCost{1});
  CHECK(links.between(host, card) == LinkCost{11, 50});
  CHECK(links.between(card, host) == LinkCost{21, 25});
  CHECK(links.between(card, other_card) == LinkCost{31, 200});
  CHECK(links.between(card, other_rank) == LinkCost{35, 1 / (1 / (1 / (1 / 25.0 + 1 / 100.0)) + 1 / 50.0)});
  CHECK(links.between(host, other_rank).busy_us_per_byte == 0.5);
  CHECK(links.between(host, other_rank).latency_us == 15);
}

TEST_CASE("what comes from another device is held where it is read", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(4, 1);
  problem.value_bytes = {0, 0, 0, 100, 0, 0};  // what layer 1 makes
  for (auto& [kind, layers] : problem.layers) layers[1].activation_bytes = 100;
  const PlanChoice choice{{2, 2}};
  CHECK(costs_of(problem, choice).stages[1].activation_bytes == 100);  // a copy
  problem.workers[1].place.device = "gpu:0";
  CHECK(costs_of(problem, choice).stages[1].activation_bytes == 0);
}

TEST_CASE("workers on devices of one kind are interchangeable, those on unlike ones are not", "[unit][plan]") {
  std::vector<PlannedWorker> workers(4);
  const auto count = [&] { return placements_of(workers, 4).list.size(); };
  for (int i = 0; i < 4; ++i) workers[static_cast<std::size_t>(i)].place.device = concat("gpu:", i);
  for (PlannedWorker& worker : workers) worker.kind = "gpu";
  CHECK(count() == 1);
  workers[3].kind = "other gpu";
  CHECK(count() == 4);
  workers[3].kind = "gpu";
  workers[3].place.device = "gpu:2";  // two of them share one
  CHECK(count() == 6);
  CHECK_FALSE(placements_of(std::vector<PlannedWorker>(8, workers[0]), 8).list.empty());
}

TEST_CASE("who is left of unlike workers keeps its device", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(4, 4);
  for (LayerCost& cost : problem.layers["cpu"]) cost = layer_cost(100, 100, 100);
  PlanChoice choice = make_plan(problem, only("1f1b")).best().choice;
  CHECK(choice.placement == std::vector<int>{0});
  CHECK(drop_idle(problem, choice) == std::vector<int>{1});
  REQUIRE(problem.workers.size() == 1);
  CHECK(problem.workers[0].kind == "gpu");
  CHECK(problem.workers[0].place.device == "gpu:0");
}

TEST_CASE("a worker on a kind of device without costs is refused", "[unit][plan]") {
  PlanProblem problem = fast_and_slow(4, 4);
  problem.workers[1].kind = "tpu";
  CHECK(error_of<UserError>([&] {
          costs_of(problem, {{2, 2}});
        }) == "plan: worker 1 is on tpu, of which no costs are known");
}
