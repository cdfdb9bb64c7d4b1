// SPDX-License-Identifier: Apache-2.0
#include "partitioner/replica_plans.hpp"

#include <algorithm>
#include <optional>

#include "runtime/base/error.hpp"
#include "runtime/schedule/auto.hpp"

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// `count` runs of `size` workers, on one host each if there is room, else one after the other.
std::vector<std::vector<int>> runs_of(const std::vector<PlannedWorker>& workers, int count, int size) {
  std::vector<std::vector<int>> runs;
  std::vector<int> run;
  for (int worker = 0; worker < static_cast<int>(workers.size()) && static_cast<int>(runs.size()) < count; ++worker) {
    if (!run.empty() && workers[at(worker)].place.host != workers[at(run.back())].place.host) run.clear();
    run.push_back(worker);
    if (static_cast<int>(run.size()) == size) runs.push_back(std::move(run)), run.clear();
  }
  if (static_cast<int>(runs.size()) == count) return runs;
  runs.clear();
  for (int first = 0; first < count * size; first += size) {
    std::vector<int>& next = runs.emplace_back();
    for (int worker = first; worker < first + size; ++worker) next.push_back(worker);
  }
  return runs;
}

/// The first of the replicas by itself, as if each of its workers were the slowest, for what it has to do, of those in
/// its place, and if `smallest` also the smallest. It takes no longer and needs no more than with the others: of an
/// update it does its part alone (an equal one, so of parameters that are too small to be divided it may need less).
/// (Others may need less: where they share a memory, the first one has the weights.)
PlanProblem one_pipeline(const PlanProblem& problem, const std::vector<std::vector<int>>& members, bool smallest) {
  PlanProblem one = problem;
  one.replicas = {};
  one.workers.clear();
  for (std::size_t i = 0; i < members.front().size(); ++i) {
    PlannedWorker worker = problem.workers[at(members.front()[i])];
    for (int replica = 0; replica < problem.replicas.count; ++replica) {
      const PlannedWorker& other = problem.workers[at(members[at(replica)][i])];
      const TermRange mine = problem.replicas.micro_batches_of(replica, problem.replicas.micro_batches);
      const double as_fast = other.speed * problem.micro_batches / (mine.end - mine.begin);
      if (other.kind == worker.kind) worker.speed = std::min(worker.speed, as_fast);
      if (smallest) worker.limit_bytes = std::min(worker.limit_bytes, other.limit_bytes);
    }
    one.workers.push_back(worker);
  }
  const double share = 1.0 / problem.replicas.count;
  for (auto& [kind, costs] : one.layers)
    for (LayerCost& cost : costs) cost.update_us *= share;
  one.data_bytes *= static_cast<double>(problem.micro_batches) / problem.replicas.micro_batches;
  if (problem.replicas.shard_optimizer) {
    for (int p = 0; p < static_cast<int>(problem.graph.parameters.size()); ++p)
      if (problem.optimizer_bytes.empty()) one.optimizer_bytes.push_back(optimizer_bytes_of(problem, p));
    for (double& bytes : one.optimizer_bytes) bytes *= share;
  }
  return one;
}

/// A plan of one replica, judged with all of them.
RankedPlan with_replicas(const PlanProblem& problem, const std::vector<std::vector<int>>& members,
                         const RankedPlan& one) {
  RankedPlan plan;
  plan.choice = one.choice;
  plan.choice.placement.clear();
  const auto rows = one.choice.placement.empty() ? members.front().size() : one.choice.placement.size();
  for (const std::vector<int>& replica : members)
    for (std::size_t row = 0; row < rows; ++row) plan.choice.placement.push_back(replica[one.choice.worker_of(row)]);
  plan.simulated = judge(problem, plan.choice);
  plan.fits = largest_excess(problem, plan).row < 0;
  return plan;
}

class ReplicaPlans {
 public:
  ReplicaPlans(const PlanProblem& problem, const PlanScope& scope) : problem_(problem), scope_(scope) {
    for (const auto& [kind, costs] : problem.layers) {
      double us = 0;
      for (const LayerCost& cost : costs) us += cost.update_us;
      update_us_ = std::max(update_us_, us);
    }
  }

  void add(ReplicaPlacement order) {
    const std::vector<std::vector<int>> members = workers_of_replicas(problem_.workers, problem_.replicas.count, order);
    add(members, make_plan(one_pipeline(problem_, members, false), scope_));
    if (!best_ || !best_->fits)  // an unlike limit may be in the way
      add(members, make_plan(one_pipeline(problem_, members, true), scope_));
  }

  PlanResult take() {
    std::stable_sort(result_.ranked.begin(), result_.ranked.end(),
                     [this](const RankedPlan& a, const RankedPlan& b) { return is_better(a, b, problem_); });
    if (result_.fits()) return std::move(result_);
    if (closest_) {  // one pipeline alone does not fit
      closest_->ranked = std::move(result_.ranked);
      return std::move(*closest_);
    }
    result_.exact = result_.least_limit_exact = false;
    result_.least_limit_bytes = std::numeric_limits<double>::infinity();
    for (const RankedPlan& plan : result_.ranked)
      result_.least_limit_bytes =
          std::min(result_.least_limit_bytes,
                   *std::max_element(plan.simulated.total_bytes.begin(), plan.simulated.total_bytes.end()));
    return std::move(result_);
  }

 private:
  void add(const std::vector<std::vector<int>>& members, const PlanResult& of_one) {
    result_.simulations += of_one.simulations;
    // With a single worker each there is one cut.
    const bool exact = members.front().size() == 1 && of_one.exact;
    result_.exact = result_.exact && exact;
    result_.exact_workers = result_.exact_workers && exact;
    for (const RankedPlan& plan : of_one.ranked) {
      const bool fits = best_ && best_->fits;
      // What is slower by itself is not faster with others. (But for the update: small parameters may be all
      // another's.)
      const double least_us = plan.simulated.period_us - update_us_ / problem_.replicas.count;
      if (fits && (!plan.fits || compare_rounded(least_us, best_->simulated.period_us) > 0)) break;
      ++result_.simulations;
      result_.ranked.push_back(with_replicas(problem_, members, plan));
      if (!best_ || is_better(result_.ranked.back(), *best_, problem_)) best_ = result_.ranked.back();
    }
    if (of_one.fits()) return;
    if (!closest_ || of_one.least_limit_bytes < closest_->least_limit_bytes) closest_ = of_one;
  }

  const PlanProblem& problem_;
  const PlanScope& scope_;
  double update_us_ = 0;  // of the whole model
  PlanResult result_;
  std::optional<RankedPlan> best_;
  std::optional<PlanResult> closest_;  // of those where nothing fits
};

bool all_in_one_place(const std::vector<PlannedWorker>& workers) {
  return std::all_of(workers.begin(), workers.end(), [&](const PlannedWorker& worker) {
    return worker.place.shares_memory_with(workers.front().place) && worker.speed == workers.front().speed &&
           worker.limit_bytes == workers.front().limit_bytes;
  });
}

}  // namespace

std::vector<std::vector<int>> workers_of_replicas(const std::vector<PlannedWorker>& workers, int replicas,
                                                  ReplicaPlacement order) {
  const int of_each = static_cast<int>(workers.size()) / replicas;
  if (order == ReplicaPlacement::pipeline_first) return runs_of(workers, replicas, of_each);
  std::vector<std::vector<int>> members(at(replicas));
  for (const std::vector<int>& place : runs_of(workers, of_each, replicas))
    for (int replica = 0; replica < replicas; ++replica) members[at(replica)].push_back(place[at(replica)]);
  return members;
}

PlanResult plan_replicas(const PlanProblem& problem, const PlanScope& scope) {
  const int replicas = problem.replicas.count, workers = static_cast<int>(problem.workers.size());
  if (workers < replicas)
    throw UserError(
        concat("plan: got ", workers, " workers for ", replicas, " replicas, expected at least one for each of them"));
  if (scope.all_workers && workers % replicas != 0)
    throw UserError(concat("plan: got ", workers, " workers for ", replicas,
                           " replicas, expected a multiple: none may be idle, and all replicas have as many"));
  ReplicaPlans plans(problem, scope);
  plans.add(ReplicaPlacement::pipeline_first);
  if (workers / replicas > 1 && !all_in_one_place(problem.workers)) plans.add(ReplicaPlacement::replicas_first);
  return plans.take();
}

}  // namespace lockstep
