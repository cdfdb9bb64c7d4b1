// SPDX-License-Identifier: Apache-2.0
//
// Plans of several replicas.
#include "partitioner/plan_file.hpp"
#include "partitioner/replica_plans.hpp"
#include "tests/test.hpp"
#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr double kMiB = 1048576;

Replicas replicas_of(int count, int groups, int micro_batches) {
  return {count, groups, micro_batches};
}

/// A chain with gradients worth sending: a MiB for each layer.
PlanProblem heavy_chain(int layers, int workers, int count, int micro_batches) {
  PlanProblem problem = chain_problem(layers, workers, micro_batches);
  for (LayerParameter& parameter : problem.graph.parameters) parameter.elements = 1 << 18;
  for (LayerCost& cost : problem.layers["cpu"]) cost.update_us = 100;
  set_replicas(problem, replicas_of(count, count, micro_batches));
  return problem;
}

void on_hosts(PlanProblem& problem, const std::vector<int>& hosts) {
  for (std::size_t i = 0; i < hosts.size(); ++i) problem.workers[i].place = {static_cast<int>(i), hosts[i]};
}

void in_one_process(PlanProblem& problem) {
  for (PlannedWorker& worker : problem.workers) worker.place = {0, 0};
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

TEST_CASE("who belongs together is on one host where there is room", "[unit][plan]") {
  PlanProblem problem = chain_problem(4, 8, 4);
  on_hosts(problem, {0, 0, 0, 0, 1, 1, 1, 1});
  using Members = std::vector<std::vector<int>>;
  CHECK(workers_of_replicas(problem.workers, 2, ReplicaPlacement::pipeline_first) ==
        Members{{0, 1, 2, 3}, {4, 5, 6, 7}});
  CHECK(workers_of_replicas(problem.workers, 2, ReplicaPlacement::replicas_first) ==
        Members{{0, 2, 4, 6}, {1, 3, 5, 7}});
  on_hosts(problem, {0, 0, 0, 1, 1, 1, 2, 2});  // one of three stays behind on each host
  CHECK(workers_of_replicas(problem.workers, 3, ReplicaPlacement::pipeline_first) == Members{{0, 1}, {3, 4}, {6, 7}});
  on_hosts(problem, {0, 0, 0, 1, 1, 1, 1, 1});  // no room for two runs of four: across
  CHECK(workers_of_replicas(problem.workers, 2, ReplicaPlacement::pipeline_first) ==
        Members{{0, 1, 2, 3}, {4, 5, 6, 7}});
}

TEST_CASE("a placement of all replicas is one of the config's two, and that of one of them", "[unit][plan]") {
  PlanChoice choice;
  choice.placement = {1, 0, 3, 2, 5, 4};  // three replicas of two, the rows of each turned around
  CHECK(placement_of_replicas(choice, 3) == ReplicaPlacement::pipeline_first);
  CHECK(placement_of_one(choice, 3) == std::vector<int>{1, 0});
  choice.placement = {3, 0, 4, 1, 5, 2};
  CHECK(placement_of_replicas(choice, 3) == ReplicaPlacement::replicas_first);
  CHECK(placement_of_one(choice, 3) == std::vector<int>{1, 0});
}

TEST_CASE("a plan file has its replicas, and what was predicted of all of them", "[unit][plan]") {
  PlanProblem problem = heavy_chain(3, 4, 2, 8);
  problem.add_us_per_byte["cpu"] = 1e-3;
  problem.parameter_bytes = 8;
  const PlanResult result = make_plan(problem);
  PlanFile file;
  file.choice = result.best().choice;
  file.layers = 3;
  file.signature = "s";
  file.batch = 16;
  file.micro_batches = 8;
  file.replicas = file.gradient_groups = 2;
  file.recompute_text = "never";
  file.workers = problem.workers;
  file.key = "k";
  PlanPrediction& p = file.predicted.emplace();
  p.costs = costs_of(problem, file.choice);
  for (std::size_t row = 0; row < 4; ++row) {
    p.compute_us.push_back(result.best().simulated.work_us[row]);
    p.wait_us.push_back(1000);
    p.peak_bytes.push_back(1 << 20);
  }
  const auto of_each = static_cast<int>(file.choice.layers_per_stage.size());
  for (int stage = 0; stage < 2 * of_each; ++stage) p.stages.push_back({stage / of_each * 2 + stage % of_each, 1});
  p.layers = {{"a"}, {"b"}, {"c"}};
  const std::string text = to_yaml(file);
  const PlanFile back = read_plan(load_config_text(text, "plan.yaml"));
  CHECK(back.replicas == 2);
  CHECK(back.gradient_groups == 2);
  CHECK(back.replicas_section.text("placement") == to_string(placement_of_replicas(file.choice, 2)));
  REQUIRE(back.predicted);
  const Costs& costs = back.predicted->costs;
  CHECK(costs.element_bytes == 8);
  CHECK(costs.flow_bytes == p.costs.flow_bytes);
  CHECK(costs.stages.size() == p.stages.size());
  REQUIRE(costs.reduce_us.size() == 4);
  CHECK(costs.reduce_us[0] == Approx(p.costs.reduce_us[0]));
}

TEST_CASE("replicas of one memory share update and sums, and have weights once", "[unit][plan]") {
  PlanProblem problem = heavy_chain(2, 2, 2, 4);
  in_one_process(problem);
  problem.add_us_per_byte["cpu"] = 1e-3;
  const PlanChoice choice{{2}, 1, "1f1b", Recompute::never, {0, 1}};
  const Costs costs = costs_of(problem, choice);
  REQUIRE(costs.update_us.size() == 2);
  CHECK(sum(costs.update_us) == Approx(200));
  CHECK(costs.update_us[0] == Approx(100));
  // Each adds the other's gradients of half of the elements to its own.
  CHECK(costs.reduce_us[0] == Approx(1 * kMiB * 1e-3));
  CHECK(costs.resident_bytes[0] == Approx(2 * kMiB * 3));  // values and Adam's two
  CHECK(costs.resident_bytes[1] == 0);
}

TEST_CASE("in memories of their own each updates everything, or with shards its part", "[unit][plan]") {
  PlanProblem problem = heavy_chain(2, 2, 2, 4);
  const PlanChoice choice{{2}, 1, "1f1b", Recompute::never, {0, 1}};
  Costs costs = costs_of(problem, choice);
  CHECK(costs.update_us == std::vector<double>{200, 200});
  for (const double bytes : costs.resident_bytes) CHECK(bytes == Approx(2 * kMiB * 3));
  problem.replicas.shard_optimizer = true;
  costs = costs_of(problem, choice);
  CHECK(sum(costs.update_us) == Approx(200));
  for (const double bytes : costs.resident_bytes) CHECK(bytes == Approx(2 * kMiB * 2));  // 4 + 8/H bytes each
}

TEST_CASE("sums that wait for their other half are bytes of the plan", "[unit][plan]") {
  PlanProblem problem = heavy_chain(1, 1, 1, 8);
  const PlanChoice choice{{1}, 1, "1f1b", Recompute::never, {0}};
  const double one = costs_of(problem, choice).stages[0].gradient_bytes;
  for (const auto& [groups, sums] : {std::pair(2, 2), {4, 3}, {8, 4}}) {
    set_replicas(problem, replicas_of(1, groups, 8));
    CHECK(costs_of(problem, choice).stages[0].gradient_bytes == sums * one);
  }
}

TEST_CASE("what several replicas are sent at once shares the sender's link", "[unit][plan]") {
  for (const int count : {2, 4}) {
    INFO(count);
    PlanProblem problem = heavy_chain(1, count, count, count);
    for (LayerCost& cost : problem.layers["cpu"]) cost.update_us = 0;
    problem.links.same_host = {0, 1.0};  // a byte per microsecond
    const PlanChoice choice{{1}, 1, "1f1b", Recompute::never, {}};
    // Reduce and gather: (R - 1) / R of the bytes out of each memory, both times.
    const double sent_us = 2 * kMiB * (count - 1) / count;
    CHECK(judge(problem, choice).step_us == Approx(3 + sent_us));
  }
}

TEST_CASE("a plan of replicas is as it will run, and no worse than any of one worker each", "[unit][plan]") {
  std::mt19937 random(5);
  for (int i = 0; i < 40; ++i) {
    PlanProblem problem = random_problem(random, {6, 4, 6, /*unequal=*/true});
    const int workers = static_cast<int>(problem.workers.size()), count = std::min(workers, problem.micro_batches);
    if (count < 2) continue;
    INFO("problem " << i << ", " << count << " replicas on " << workers << " workers");
    set_replicas(problem, replicas_of(count, count, problem.micro_batches));
    problem.replicas.shard_optimizer = i % 3 == 0;
    if (problem.replicas.shard_optimizer)  // of parameters so small one replica has all, whatever the equal share is
      for (PlannedWorker& worker : problem.workers) worker.limit_bytes = PlannedWorker().limit_bytes;
    problem.add_us_per_byte["cpu"] = 0.01;
    const PlanResult result = make_plan(problem);
    for (const RankedPlan& plan : result.ranked) {
      const Simulation again = judge(problem, plan.choice);
      CHECK(again.period_us == plan.simulated.period_us);
      CHECK(fits(problem, plan.choice, again) == plan.fits);
      CHECK(rows_of(problem, plan.choice) % count == 0);
    }
    if (workers != count || !result.fits()) continue;
    // One worker each, in the only order that there is.
    for (const ScheduleGenerator& generator : schedule_generators()) {
      if (!is_legal(generator, {1, 1, problem.micro_batches})) continue;
      for (const Recompute recompute : {Recompute::never, Recompute::except_last, Recompute::always}) {
        std::vector<int> order(static_cast<std::size_t>(count));
        std::iota(order.begin(), order.end(), 0);
        const PlanChoice choice{{problem.graph.layers()}, 1, generator.name, recompute, order};
        const Simulation other = judge(problem, choice);
        if (!fits(problem, choice, other)) continue;
        INFO(generator.name << " " << to_string(recompute));
        CHECK(result.best().simulated.period_us <= other.period_us * (1 + 1e-9));
      }
    }
  }
}

TEST_CASE("neighbours are those that send each other most", "[unit][plan]") {
  // Two hosts with two workers each, two pipelines of two stages, and a slow link between the hosts.
  PlanProblem problem = heavy_chain(2, 4, 2, 8);
  on_hosts(problem, {0, 0, 1, 1});
  problem.links.same_host = {0, 1e5};
  problem.links.other_host = {0, 1e2};
  PlanScope scope;
  scope.all_workers = true;
  scope.virtual_stages = {1};
  const auto placed = [&] { return placement_of_replicas(make_plan(problem, scope).best().choice, 2); };
  CHECK(placed() == ReplicaPlacement::replicas_first);  // gradients stay on a host
  for (LayerParameter& parameter : problem.graph.parameters) parameter.elements = 1;
  problem.value_bytes.assign(problem.value_bytes.size(), 1 << 16);
  CHECK(placed() == ReplicaPlacement::pipeline_first);  // activations do
}

TEST_CASE("replicas that there are no workers for are refused", "[unit][plan]") {
  PlanProblem problem = heavy_chain(2, 3, 2, 8);
  PlanScope scope;
  CHECK(rows_of(problem, make_plan(problem, scope).best().choice) == 2);  // one stays idle
  scope.all_workers = true;
  CHECK_THROWS_WITH(
      make_plan(problem, scope),
      "plan: got 3 workers for 2 replicas, expected a multiple: none may be idle, and all replicas have as "
      "many");
  set_replicas(problem, replicas_of(4, 4, 8));
  scope.all_workers = false;
  CHECK_THROWS_WITH(make_plan(problem, scope),
                    "plan: got 3 workers for 4 replicas, expected at least one for each of them");
}
