// SPDX-License-Identifier: Apache-2.0
#include "partitioner/make_plan.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "partitioner/count_search.hpp"
#include "partitioner/replica_plans.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/schedule/generators.hpp"

namespace lockstep {
namespace {

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

double most(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

/// "needs 2.30 GiB on worker 0, limit 2.00 GiB": the worker that exceeds its limit most.
std::string why_it_does_not_fit(const PlanProblem& problem, const RankedPlan& plan) {
  const Excess excess = largest_excess(problem, plan);
  std::string text =
      concat("needs ", size_text(excess.bytes), " on worker ", excess.worker, ", limit ", size_text(excess.limit));
  if (size_text(excess.bytes) == size_text(excess.limit))
    text += concat(" (", size_text(excess.bytes - excess.limit), " more)");
  return text;
}

std::string why_it_lost(const PlanProblem& problem, const RankedPlan& plan, const RankedPlan& best) {
  const Simulation &a = plan.simulated, &b = best.simulated;
  const auto longer = [](double x, double y) { return y > 0 ? x / y - 1 : 0; };
  constexpr double kSame = 1e-9;
  if (!plan.fits) return why_it_does_not_fit(problem, plan);
  if (const double by = longer(a.period_us, b.period_us); by > kSame) {
    std::string text = concat("step ", percent_text(by), " longer: ");
    const double work = longer(sum(a.work_us), sum(b.work_us));
    if (work >= 0.001) text += concat(percent_text(work), " more work, ");
    return text + concat("bubble ", percent_text(a.bubble_steady), " against ", percent_text(b.bubble_steady));
  }
  if (const double by = longer(a.step_us, b.step_us); by > kSame)
    return concat("a step alone takes ", percent_text(by), " longer");
  if (longer(most(a.total_bytes), most(b.total_bytes)) > kSame)
    return concat("as fast, but needs ", size_text(most(a.total_bytes)), " against ", size_text(most(b.total_bytes)));
  return "just as good";
}

/// The layer that needs most when it is all that its worker has, with one micro-batch alive; on worker 0's kind.
int hungriest_layer(const PlanProblem& problem, const PlanScope& scope) {
  const CostModel model(problem);
  LayerRuns runs(model, 0, false);
  std::vector<Recompute> recomputes = scope.recomputes;
  if (recomputes.empty()) recomputes = {Recompute::never, Recompute::always};
  const auto bytes_alone = [&](int layer) {
    const LayerRun& run = runs.run(layer, layer + 1);
    double least = std::numeric_limits<double>::infinity();
    for (const Recompute recompute : recomputes) {
      const ScheduleFacts alone(make_schedule("1f1b", {1, 1, 1}), recompute);
      least = std::min(least, alone.peak_bytes(0, run.cost, run.has_backward, run.has_weight_grad, run.values_bytes,
                                               run.gradients_bytes));
    }
    return run.resident_bytes + least;
  };
  int hungriest = 0;
  double bytes = -1;
  for (int layer = 0; layer < model.layers(); ++layer) {
    const double needs = bytes_alone(layer);
    if (needs <= bytes) continue;
    bytes = needs;
    hungriest = layer;
  }
  return hungriest;
}

bool equal_limits(const PlanProblem& problem) {
  return std::all_of(problem.workers.begin(), problem.workers.end(), [&](const PlannedWorker& worker) {
    return worker.limit_bytes == problem.workers.front().limit_bytes;
  });
}

/// Workers like worker 0, each a rank of its own on one host.
void find_fewest_workers(const PlanProblem& problem, const PlanScope& scope, PlanResult& result) {
  PlanProblem more = problem;
  PlanScope anywhere = scope;
  anywhere.placement.clear();
  const int given = static_cast<int>(problem.workers.size());
  for (int workers = equal_limits(problem) ? given + 1 : given; workers <= problem.graph.layers(); ++workers) {
    more.workers.assign(static_cast<std::size_t>(workers), problem.workers.front());
    for (int i = 0; i < workers; ++i) more.workers[static_cast<std::size_t>(i)].place = {i, 0};
    try {
      PlanTables tables(more);
      bool sure = true;
      if (Planner(tables, anywhere, workers, {scope.most_simulations}).anything_fits(sure)) {
        result.least_workers = workers;
        return;
      }
      result.least_workers_exact = result.least_workers_exact && sure;
    } catch (const UserError&) {
      continue;  // no legal shape for so many
    }
  }
}

void say_why(const PlanProblem& problem, PlanResult& result) {
  for (std::size_t i = 0; i < result.ranked.size(); ++i) {
    RankedPlan& plan = result.ranked[i];
    if (!plan.fits) {
      plan.why = why_it_does_not_fit(problem, plan);
    } else if (i > 0) {
      plan.why = why_it_lost(problem, plan, result.best());
    }
  }
  if (!result.with_all) return;
  RankedPlan& all = *result.with_all;
  all.why = all.fits ? why_it_lost(problem, all, result.best()) : why_it_does_not_fit(problem, all);
}

}  // namespace

PlanResult make_plan(const PlanProblem& problem, const PlanScope& scope) {
  if (problem.replicas.count > 1) {
    PlanResult result = plan_replicas(problem, scope);
    say_why(problem, result);
    return result;
  }
  CountSearch search(problem, scope);
  PlanResult result = search.best();
  if (!result.fits()) {
    search.find_least_limit(result);
    result.layer_in_the_way = hungriest_layer(problem, scope);
    if (scope.layers_per_stage.empty()) {
      find_fewest_workers(problem, scope, result);
    } else {
      PlanScope free = scope;
      free.layers_per_stage.clear();
      free.all_workers = true;
      result.without_cuts = std::make_shared<PlanResult>(make_plan(problem, free));
    }
    result.simulations = search.simulations();
  }
  say_why(problem, result);
  return result;
}

}  // namespace lockstep
