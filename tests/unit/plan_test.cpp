// SPDX-License-Identifier: Apache-2.0
#include "partitioner/make_plan.hpp"

#include <map>
#include <optional>
#include <tuple>

#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Combination = std::tuple<int, std::string, int, Recompute>;  // with the number of workers

struct BruteForce {
  std::optional<Simulation> best;  // of those that fit
  std::map<Combination, Simulation> best_of_each;
  double least_bytes = std::numeric_limits<double>::infinity();
};

Combination combination_of(const PlanChoice& choice) {
  return {static_cast<int>(choice.placement.size()), choice.schedule, choice.virtual_stages, choice.recompute};
}

/// With every number of workers from `least` on.
BruteForce try_all(const PlanProblem& problem, bool placements, int least = 1) {
  BruteForce all;
  for (int rows = least; rows <= static_cast<int>(problem.workers.size()); ++rows)
    each_choice(problem, rows, placements, [&](const PlanChoice& choice) {
      Simulation simulation = judge(problem, choice);
      all.least_bytes = std::min(all.least_bytes, most_bytes(simulation));
      if (!fits(problem, choice, simulation)) return;
      const auto [of_combination, is_new] = all.best_of_each.try_emplace(combination_of(choice), simulation);
      if (!is_new && compare(simulation, of_combination->second) < 0) of_combination->second = simulation;
      if (!all.best || compare(simulation, *all.best) < 0) all.best = std::move(simulation);
    });
  return all;
}

void check_against_all(const PlanProblem& problem, const PlanResult& result, const BruteForce& all) {
  REQUIRE(result.exact);
  REQUIRE(result.exact_workers);
  REQUIRE(result.fits() == all.best.has_value());
  if (!all.best) {
    CHECK(result.least_limit_bytes == all.least_bytes);
    CHECK(result.least_limit_exact);
    return;
  }
  CHECK(compare(result.best().simulated, *all.best) == 0);
  const Simulation again = judge(problem, result.best().choice);
  CHECK(compare(again, result.best().simulated) == 0);
  CHECK(fits(problem, result.best().choice, again));
  std::size_t fitting = 0, of_workers = 0;
  for (const auto& [combination, best] : all.best_of_each)
    of_workers += std::get<0>(combination) == rows_of(problem, result.best().choice) ? 1 : 0;
  for (const RankedPlan& plan : result.ranked) {
    const auto best = all.best_of_each.find(combination_of(plan.choice));
    REQUIRE(plan.fits == (best != all.best_of_each.end()));
    if (plan.fits) CHECK(compare(plan.simulated, best->second) == 0);
    fitting += plan.fits ? 1 : 0;
  }
  CHECK(fitting == of_workers);
}

PlanProblem with_limit(PlanProblem problem, double bytes) {
  for (PlannedWorker& worker : problem.workers) worker.limit_bytes = bytes;
  return problem;
}

}  // namespace

TEST_CASE("no cut, schedule or recompute is better than the plan", "[unit][plan][search]") {
  std::mt19937 random(11);
  for (int trial = 0; trial < 240; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {trial % 8 == 0 ? 10 : 6, 4, trial % 8 == 0 ? 3 : 5, false});
    check_against_all(problem, make_plan(problem), try_all(problem, false));
  }
}

TEST_CASE("with limits no plan that fits is better, and none fits when the plan says so", "[unit][plan]") {
  std::mt19937 random(12);
  int unfit = 0;
  for (int trial = 0; trial < 120; ++trial) {
    CAPTURE(trial);
    PlanProblem problem = random_problem(random, {7, 3, 4, false});
    problem = with_limit(problem, 300 + static_cast<double>(random() % 900));
    const PlanResult result = make_plan(problem);
    unfit += result.fits() ? 0 : 1;
    check_against_all(problem, result, try_all(problem, false));
  }
  CHECK(unfit > 10);
  CHECK(unfit < 110);
}

TEST_CASE("unequal workers: no placement is better either", "[unit][plan]") {
  std::mt19937 random(13);
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {6, trial % 12 == 0 ? 4 : 3, 3, true});
    check_against_all(problem, make_plan(problem), try_all(problem, true));
  }
}

TEST_CASE("fewer workers are taken where more are slower", "[unit][plan]") {
  // Six equal layers: three workers take two each, in a V; of four, two have as many, and no V is possible.
  PlanProblem problem = chain_problem(6, 4, 8);
  PlanScope scope;
  scope.schedules = {"zb_h1", "zbv"};
  scope.recomputes = {Recompute::never};
  const PlanResult result = make_plan(problem, scope);
  CHECK(result.best().choice.placement == std::vector<int>{0, 1, 2});
  CHECK(result.best().simulated.period_us == 48);
  CHECK(result.exact_workers);
  REQUIRE(result.with_all);
  CHECK(result.with_all->choice.placement.size() == 4);
  CHECK(result.with_all->why == "step 4.2 % longer: bubble 28.0 % against 0.0 %");

  scope.all_workers = true;
  const PlanResult all = make_plan(problem, scope);
  CHECK(all.best().choice.placement.size() == 4);
  CHECK_FALSE(all.with_all);
  CHECK(compare(all.best().simulated, result.with_all->simulated) == 0);

  scope.all_workers = false;
  for (LayerCost& layer : problem.layers["cpu"]) layer.step_bytes = 100;
  problem = with_limit(problem, 250);
  CHECK(make_plan(problem, scope).best().choice.placement.size() == 3);
  for (const std::size_t worker : {2, 3}) problem.workers[worker].limit_bytes = 150;  // a layer each
  CHECK(make_plan(problem, scope).best().choice.placement.size() == 4);
}

TEST_CASE("a worker that is too slow or too small is left idle", "[unit][plan]") {
  PlanProblem problem = chain_problem(6, 4, 4);
  problem.workers[1].speed = 0.01;
  const PlanChoice fast = make_plan(problem).best().choice;
  CHECK(std::count(fast.placement.begin(), fast.placement.end(), 1) == 0);
  problem.workers[1].speed = 1;
  for (LayerCost& layer : problem.layers["cpu"]) layer.step_bytes = 10;
  problem.workers[2].limit_bytes = 5;  // not one layer
  const PlanResult small = make_plan(problem);
  REQUIRE(small.fits());
  CHECK(std::count(small.best().choice.placement.begin(), small.best().choice.placement.end(), 2) == 0);
  REQUIRE(small.with_all);
  CHECK(contains(small.with_all->why, "needs 10 B on worker 2, limit 5 B"));
}

TEST_CASE("of many workers some numbers are tried, and the plan is never worse than that of all",
          "[unit][plan][search]") {
  std::mt19937 random(18);
  std::uniform_real_distribution<double> cost(5, 15);
  PlanScope scope;
  scope.schedules = {"1f1b", "zb_h1", "zbv"};
  scope.recomputes = {Recompute::never};
  for (const bool equal : {true, false}) {
    PlanProblem problem = chain_problem(24, 20, 40);
    problem.links.same_host.latency_us = 1;
    for (LayerCost& layer : problem.layers["cpu"])
      layer = equal ? layer_cost(10, 10, 10) : layer_cost(cost(random), cost(random), cost(random));
    const PlanResult result = make_plan(problem, scope);
    PlanScope all = scope;
    all.all_workers = true;
    CHECK(compare(result.best().simulated, make_plan(problem, all).best().simulated) <= 0);
    if (!equal) continue;
    CHECK(result.best().choice.placement.size() == 12);  // two layers each, in a V
    for (int workers = 1; workers < 20; ++workers) {
      PlanProblem fewer = problem;
      equal_workers(fewer, workers);
      CHECK(compare(result.best().simulated, make_plan(fewer, all).best().simulated) <= 0);
    }
  }
}

TEST_CASE("more workers than layers, or than a schedule takes, leave some idle", "[unit][plan]") {
  const PlanResult few = make_plan(chain_problem(3, 12, 2));
  CHECK(few.best().choice.placement.size() <= 3);
  CHECK_FALSE(few.with_all);
  PlanScope scope;
  scope.schedules = {"dualpipev"};  // two micro-batches a worker
  CHECK(make_plan(chain_problem(8, 4, 4), scope).best().choice.placement.size() <= 2);
}

TEST_CASE("a limit is exact at the byte", "[unit][plan]") {
  std::mt19937 random(14);
  for (int trial = 0; trial < 40; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {7, 3, 4, false});
    const RankedPlan best = make_plan(problem).best();
    const double bytes = most_bytes(best.simulated);
    const PlanResult same = make_plan(with_limit(problem, bytes));
    REQUIRE(same.fits());
    CHECK(compare(same.best().simulated, best.simulated) == 0);
    const PlanResult other = make_plan(with_limit(problem, bytes - 1));
    CHECK((!other.fits() || compare(other.best().simulated, best.simulated) > 0));
    if (!other.fits()) {
      CHECK(make_plan(with_limit(problem, other.least_limit_bytes)).fits());
      CHECK_FALSE(make_plan(with_limit(problem, other.least_limit_bytes - 1)).fits());
    }
  }
}

TEST_CASE("when nothing fits, the fewest workers that would do are named", "[unit][plan]") {
  std::mt19937 random(15);
  int named = 0, none = 0;
  for (int trial = 0; trial < 40; ++trial) {
    CAPTURE(trial);
    PlanProblem problem = random_problem(random, {6, 2, 3, false});
    problem = with_limit(problem, 200 + static_cast<double>(random() % 400));
    const PlanResult result = make_plan(problem);
    if (result.fits()) continue;
    int fewest = 0;
    const int layers = problem.graph.layers();
    for (int workers = static_cast<int>(problem.workers.size()) + 1; fewest == 0 && workers <= layers; ++workers) {
      PlanProblem more = problem;
      equal_workers(more, workers);
      if (try_all(with_limit(more, problem.workers.front().limit_bytes), false, workers).best) fewest = workers;
    }
    CHECK(result.least_workers == fewest);
    ++(fewest > 0 ? named : none);
    CHECK(result.layer_in_the_way >= 0);
    CHECK(contains(result.best().why, "needs "));
  }
  CHECK(named > 3);
  CHECK(none > 3);
}

TEST_CASE("the layer in the way is the one that needs the most alone", "[unit][plan]") {
  PlanProblem problem = chain_problem(4, 2, 2);
  problem.graph.parameters[2].elements = 100;
  const PlanResult result = make_plan(with_limit(problem, 1000));
  CHECK_FALSE(result.fits());
  CHECK(result.layer_in_the_way == 2);
  CHECK(result.least_limit_bytes == 100 * (4 + 8 + 4));  // value, optimizer state, gradient
  CHECK(result.least_workers == 0);
  CHECK(result.best().why == "needs 1.56 KiB on worker 0, limit 1000 B");
}

TEST_CASE("of fixed cuts that do not fit it is known whether others do", "[unit][plan]") {
  PlanProblem problem = chain_problem(6, 2, 4);
  for (LayerCost& layer : problem.layers["cpu"]) layer.step_bytes = 100;
  PlanScope scope;
  scope.layers_per_stage = {5, 1};
  const PlanResult result = make_plan(with_limit(problem, 400), scope);
  REQUIRE_FALSE(result.fits());
  CHECK(result.least_limit_bytes == 500);
  CHECK(result.least_workers == 0);  // not asked: the cuts have said how many there are
  const Excess excess = largest_excess(with_limit(problem, 400), result.best());
  CHECK(excess.row == 0);
  CHECK(excess.bytes - excess.limit == 100);
  REQUIRE(result.without_cuts);
  REQUIRE(result.without_cuts->fits());
  CHECK(most_bytes(result.without_cuts->best().simulated) <= 400);

  const PlanResult tight = make_plan(with_limit(problem, 250), scope);
  REQUIRE(tight.without_cuts);
  CHECK_FALSE(tight.without_cuts->fits());
  CHECK(tight.without_cuts->least_limit_bytes == 300);
  CHECK(tight.without_cuts->least_workers == 3);
  CHECK_FALSE(make_plan(with_limit(problem, 250)).without_cuts);
}

TEST_CASE("what is fixed stays fixed", "[unit][plan]") {
  PlanProblem problem = chain_problem(8, 2, 4);
  PlanScope scope;
  scope.schedules = {"gpipe"};
  scope.recomputes = {Recompute::always};
  scope.layers_per_stage = {3, 5};
  scope.placement = {1, 0};
  const PlanResult result = make_plan(problem, scope);
  REQUIRE(result.ranked.size() == 1);
  CHECK(result.best().choice == PlanChoice{{3, 5}, 1, "gpipe", Recompute::always, {1, 0}});
  CHECK(result.exact);
  CHECK(result.simulations == 1);

  PlanScope v;
  v.schedules = {"zbv"};
  CHECK(make_plan(problem, v).best().choice.virtual_stages == 2);
  CHECK(make_plan(problem, v).ranked.size() == 3);
}

TEST_CASE("a slow worker gets fewer layers, a small one less memory", "[unit][plan]") {
  PlanProblem problem = chain_problem(9, 2, 8);
  problem.workers[0].speed = 0.5;
  PlanScope scope;
  scope.schedules = {"1f1b"};
  scope.recomputes = {Recompute::never};
  const PlanChoice slow = make_plan(problem, scope).best().choice;
  const std::size_t row_of_slow = slow.placement[0] == 0 ? 0 : 1;
  CHECK(slow.layers_per_stage[row_of_slow] == 3);

  problem.workers[0].speed = 1;
  for (LayerCost& layer : problem.layers["cpu"]) layer.activation_bytes = 10;
  problem.workers[0].limit_bytes = 30;
  const RankedPlan small = make_plan(problem, scope).best();
  const std::size_t row_of_small = small.choice.placement[0] == 0 ? 0 : 1;
  CHECK(small.simulated.total_bytes[row_of_small] <= 30);
  CHECK(small.fits);
}

TEST_CASE("runners-up say why they lost", "[unit][plan]") {
  PlanProblem problem = chain_problem(8, 4, 8);
  PlanScope scope;
  scope.schedules = {"1f1b", "zb_h1"};
  scope.recomputes = {Recompute::never, Recompute::always};
  const PlanResult result = make_plan(problem, scope);
  REQUIRE(result.ranked.size() == 4);
  CHECK(result.best().choice.schedule == "zb_h1");
  CHECK(result.best().why.empty());
  CHECK(result.ranked[1].why == "step 22.2 % longer: bubble 27.3 % against 11.1 %");
  CHECK(contains(result.ranked[2].why, "more work, bubble"));
}

TEST_CASE("what contradicts itself is refused with what would do", "[unit][plan]") {
  const PlanProblem problem = chain_problem(4, 2, 3);
  const auto error = [](const PlanProblem& asked, const PlanScope& scope) {
    return error_of<UserError>([&] { make_plan(asked, scope); });
  };
  PlanScope scope;
  scope.all_workers = true;
  CHECK(contains(error(chain_problem(2, 3, 1), scope), "use at most 2 workers"));
  scope.schedules = {"1f2b"};
  CHECK(contains(error(problem, scope), "no schedule '1f2b'"));
  scope.schedules = {"dualpipev"};
  CHECK(contains(error(problem, scope), "needs 2 micro-batches per worker"));
  scope.all_workers = false;
  scope.schedules = {"1f1b"};
  scope.virtual_stages = {2};
  CHECK(contains(error(problem, scope), "virtual_stages = 1"));
  scope = {};
  scope.layers_per_stage = {2, 1, 1};
  CHECK(contains(error(problem, scope), "the given partition 3"));
  scope.layers_per_stage = {2, 3};
  CHECK(contains(error(problem, scope), "has 5 layers in 2 stages; the model has 4 layers"));
  scope = {};
  scope.placement = {0, 0};
  CHECK(contains(error(problem, scope), "placement [0, 0], expected each of 0 to 1 at most once"));
  PlanProblem wrong = problem;
  wrong.layers["cpu"].pop_back();
  CHECK(contains(error(wrong, {}), "3 costs of layers, the model has 4"));
  wrong = problem;
  wrong.layers["cpu"][1].forward_us = -1;
  CHECK(contains(error(wrong, {}), "forward_us of layer 'layer1' is -1"));
  wrong = problem;
  wrong.workers[1].speed = 0;
  CHECK(contains(error(wrong, {}), "speed of worker 1 is 0"));
  wrong = problem;
  wrong.workers[0].limit_bytes = 0;
  CHECK(contains(error(wrong, {}), "limit of worker 0 is 0"));
  wrong = problem;
  wrong.workers.clear();
  CHECK(contains(error(wrong, {}), "no workers"));
  wrong = problem;
  wrong.value_bytes.push_back(1);
  CHECK(contains(error(wrong, {}), "bytes of 7 values, the model has 6"));
}

TEST_CASE("the same question has the same answer", "[unit][plan]") {
  std::mt19937 random(16);
  for (int trial = 0; trial < 20; ++trial) {
    const PlanProblem problem = random_problem(random, {8, 4, 4, true});
    const PlanResult a = make_plan(problem), b = make_plan(problem);
    REQUIRE(a.ranked.size() == b.ranked.size());
    CHECK(a.simulations == b.simulations);
    for (std::size_t i = 0; i < a.ranked.size(); ++i) {
      CHECK(a.ranked[i].choice == b.ranked[i].choice);
      CHECK(a.ranked[i].why == b.ranked[i].why);
    }
  }
}

TEST_CASE("a search that ends early says so, and keeps what it found", "[unit][plan]") {
  std::mt19937 random(17);
  std::uniform_real_distribution<double> cost(1, 30);
  PlanProblem problem = chain_problem(40, 8, 8);
  for (LayerCost& layer : problem.layers["cpu"]) layer = layer_cost(cost(random), cost(random), cost(random));
  PlanScope scope;
  scope.schedules = {"1f1b", "zb_h1"};
  scope.recomputes = {Recompute::never};
  scope.most_simulations = 10;
  const PlanResult few = make_plan(problem, scope);
  CHECK_FALSE(few.exact);
  CHECK(few.simulations <= 10);
  scope.most_simulations = 400;
  const PlanResult more = make_plan(problem, scope);
  CHECK(compare(more.best().simulated, few.best().simulated) <= 0);
  // A limit nobody reaches changes nothing.
  CHECK(make_plan(with_limit(problem, 1e12), scope).best().choice == more.best().choice);
}
