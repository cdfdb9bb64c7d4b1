// SPDX-License-Identifier: Apache-2.0
//
// The bounds of the search, and which placements it need not look at.
#include "partitioner/cut_search.hpp"
#include "partitioner/placements.hpp"
#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("no simulation is below a bound of the search", "[unit][plan]") {
  std::mt19937 random(21);
  long tight_times = 0, plans = 0;
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    const PlanProblem problem = random_problem(random, {6, 3, 4, trial % 2 == 0});
    const CostModel model(problem);
    std::vector<LayerRuns> runs = runs_by_kind(model, false), several = runs_by_kind(model, true);
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
    if (problem.graph.parameters.size() > problem.layers["cpu"].size()) problem.graph.parameters.pop_back();
    for (LayerValue& value : problem.graph.values) {  // messages of the same size both ways
      if (value.producer < 0) value.readers = {0};
      value.readers.resize(1);
    }
    for (LayerParameter& parameter : problem.graph.parameters) parameter.trainable = true;
    find_backwards(problem.graph);
    const CostModel model(problem);
    std::vector<LayerRuns> runs = runs_by_kind(model, false);
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
    std::vector<LayerRuns> runs = runs_by_kind(model, false);
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
