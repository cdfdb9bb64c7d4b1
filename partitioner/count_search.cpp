// SPDX-License-Identifier: Apache-2.0
#include "partitioner/count_search.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {
namespace {

/// Sums in another order than the simulator's come out a little different: a bound must not be above the truth.
constexpr double kBelow = 1 - 1e-12;

double work_us(const LayerCost& cost) {
  return cost.forward_us + cost.input_grad_us + cost.weight_grad_us;
}

/// The work of the busiest of `stages` runs of layers, to a millionth.
double bottleneck_us(const std::vector<LayerCost>& layers, int stages) {
  double low = 0, high = 0;
  for (const LayerCost& layer : layers) {
    low = std::max(low, work_us(layer));
    high += work_us(layer);
  }
  const auto enough = [&](double most) {
    int used = 1;
    double us = 0;
    for (const LayerCost& layer : layers) {
      if (us + work_us(layer) > most) ++used, us = 0;
      us += work_us(layer);
    }
    return used <= stages;
  };
  if (enough(low)) return low;
  while (high - low > 1e-6 * high) {
    const double middle = std::midpoint(low, high);
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

/// How many workers are at least as good, for every value but the least.
template <typename Get>
void add_steps(const std::vector<PlannedWorker>& workers, Get get, std::set<int>& counts) {
  std::vector<double> values;
  for (const PlannedWorker& worker : workers) values.push_back(get(worker));
  std::sort(values.begin(), values.end(), std::greater<>());
  constexpr std::size_t most = 4;
  std::size_t added = 0;
  for (std::size_t i = 1; i < values.size() && added < most; ++i)
    if (values[i] < values[i - 1]) counts.insert(static_cast<int>(i)), ++added;
}

/// How much faster each worker is than kind 0 at speed 1 with the layers that suit it best; the fastest first.
std::vector<double> best_speeds(const CostModel& model) {
  const auto layer_us = [&](int kind, int layer) {
    const LayerCost& cost = model.cost(kind, layer);
    return cost.forward_us + (model.layer_has_backward(layer) ? cost.input_grad_us : 0.0) +
           (model.computes_weights(layer) ? cost.weight_grad_us : 0.0);
  };
  std::vector<double> of_kind;
  for (int kind = 0; kind < model.kinds(); ++kind) {
    double most = 0;
    for (int layer = 0; layer < model.layers(); ++layer)
      if (const double us = layer_us(0, layer); us > 0) most = std::max(most, us / layer_us(kind, layer));
    of_kind.push_back(most > 0 ? most : 1);
  }
  std::vector<double> speeds;
  for (std::size_t worker = 0; worker < model.problem().workers.size(); ++worker)
    speeds.push_back(model.problem().workers[worker].speed * of_kind[static_cast<std::size_t>(model.kind_of(worker))]);
  std::sort(speeds.begin(), speeds.end(), std::greater<>());
  return speeds;
}

}  // namespace

CountSearch::CountSearch(const PlanProblem& problem, const PlanScope& scope)
    : problem_(problem),
      scope_(scope),
      tables_(problem),
      best_speeds_(best_speeds(tables_.model)),
      most_(static_cast<int>(problem.workers.size())) {
  if (!scope.placement.empty()) most_ = static_cast<int>(scope.placement.size());
  fixed_ = scope.all_workers || !scope.placement.empty() || !scope.layers_per_stage.empty();
  if (!fixed_) most_ = std::min(most_, tables_.model.layers());
}

SearchBudget CountSearch::budget(int share) const {
  SearchBudget budget;
  budget.simulations = scope_.most_simulations - simulations();
  budget.cells /= share;
  budget.partial_cuts /= share;
  budget.swapped_stages /= share;
  return budget;
}

long CountSearch::simulations() const {
  long sum = 0;
  for (const auto& [workers, planner] : planners_)
    if (planner) sum += planner->simulations();
  return sum;
}

Planner* CountSearch::planner(int workers) {
  const auto known = planners_.find(workers);
  if (known != planners_.end()) return known->second.get();
  std::unique_ptr<Planner>& made = planners_[workers];
  try {
    made = std::make_unique<Planner>(tables_, scope_, workers, SearchBudget{});
  } catch (const ScheduleError&) {
    throw;  // of a name that is none
  } catch (const UserError& error) {
    if (!refusal_) refusal_ = std::make_unique<UserError>(error);
  }
  return made.get();
}

double CountSearch::least_period_us(int workers) const {
  const StageTimes whole = tables_.one.front().times(0, tables_.model.layers());
  const double speed = std::accumulate(best_speeds_.begin(), best_speeds_.begin() + workers, 0.0);
  return kBelow * problem_.micro_batches * (whole.forward_us + whole.input_grad_us + whole.weight_grad_us) / speed;
}

double CountSearch::least_share_bytes(int workers) const {
  double bytes = 0;
  for (int layer = 0; layer < tables_.model.layers(); ++layer) {
    double least = std::numeric_limits<double>::infinity();
    for (const LayerRuns& kind : tables_.one) least = std::min(least, kind.resident_share_bytes(layer, layer + 1));
    bytes += least;
  }
  return kBelow * bytes / workers;
}

bool CountSearch::may_be_better(int workers) const {
  if (best_workers_ == 0) return true;
  const RankedPlan& best = *planners_.at(best_workers_)->best_found();
  return !best.fits || least_period_us(workers) <= best.simulated.period_us * (1 + 1e-9);
}

/// Whether so many workers have the best plan so far.
void CountSearch::note(int workers) {
  const RankedPlan* found = planners_.at(workers)->best_found();
  if (found == nullptr) return;
  if (best_workers_ == 0 || is_better(*found, *planners_.at(best_workers_)->best_found(), problem_))
    best_workers_ = workers;
}

void CountSearch::sample(int workers, int share) {
  if (planners_.contains(workers) || !may_be_better(workers) || planner(workers) == nullptr) return;
  planner(workers)->give(budget(share));
  planner(workers)->seed(best_workers_ > 0 ? planners_.at(best_workers_)->best_found() : nullptr);
  note(workers);
}

void CountSearch::search(int workers) {
  if (planner(workers) == nullptr) return;
  planner(workers)->search();
  searched_.insert(workers);
  note(workers);
}

void CountSearch::search_all_smaller() {
  for (int workers = most_ - 1; workers >= 1; --workers) {
    sample(workers, 4);
    if (may_be_better(workers)) search(workers);
  }
}

std::vector<int> CountSearch::promising() const {
  std::set<int> chosen;
  add_steps(
      tables_.model.compared_workers(), [](const PlannedWorker& worker) { return worker.speed; }, chosen);
  add_steps(
      problem_.workers, [](const PlannedWorker& worker) { return worker.limit_bytes; }, chosen);
  if (best_workers_ == 0 || planners_.at(best_workers_)->best_found()->fits) add_fast(chosen);
  std::erase_if(chosen, [this](int workers) { return workers < 1 || workers >= most_; });
  return {chosen.rbegin(), chosen.rend()};
}

/// Those that may have a shorter step. (When nothing fits, fewer workers that are alike would have to hold more.)
void CountSearch::add_fast(std::set<int>& chosen) const {
  constexpr std::size_t most = 5;
  std::vector<int> hosts;  // as many workers as fill whole ones
  for (std::size_t i = 1; i < problem_.workers.size(); ++i)
    if (problem_.workers[i].place.host != problem_.workers[i - 1].place.host) hosts.push_back(static_cast<int>(i));
  chosen.insert(hosts.end() - static_cast<std::ptrdiff_t>(std::min(most, hosts.size())), hosts.end());
  for (const int stages : {2, 4}) chosen.insert(problem_.graph.layers() / stages);
  chosen.insert(problem_.micro_batches / 2);
  std::vector<std::pair<int, double>> steps;  // workers, and the busiest one's layers
  for (int workers = 1; workers < most_; ++workers) {
    const double us = bottleneck_us(problem_.layers.at(problem_.workers.front().kind), workers);
    if (steps.empty() || us < steps.back().second * (1 - 1e-5)) steps.emplace_back(workers, us);
  }
  for (std::size_t i = 0; i < std::min(most, steps.size()); ++i) {
    const int workers = steps[steps.size() - 1 - i].first;  // the first as good as that, and the last of those before
    chosen.insert({workers, workers - 1});
  }
}

void CountSearch::search_some_smaller() {
  constexpr int kShare = 16;
  for (const int workers : promising()) sample(workers, kShare);
  const int around = best_workers_;
  if (around > 0 && around < most_)
    for (const int workers : {around - 1, around + 1, around - 2, around + 2})
      if (workers >= 1 && workers < most_) sample(workers, kShare);
  if (best_workers_ == 0 || best_workers_ == most_) return;
  planner(best_workers_)->give(budget(2));
  search(best_workers_);
}

PlanResult CountSearch::best() {
  sample(most_, 1);
  search(most_);
  if (!fixed_) most_ <= kMostCounts ? search_all_smaller() : search_some_smaller();
  if (best_workers_ == 0) throw UserError(*refusal_);
  Planner& best = *planner(best_workers_);
  best.give(budget(2));
  PlanResult result = best.ranked();
  const bool all_known = most_ == tables_.model.workers() && planner(most_) != nullptr;
  if (all_known && best_workers_ != most_ && planner(most_)->best_found() != nullptr)
    result.with_all = *planner(most_)->best_found();
  for (int workers = 1; !fixed_ && workers <= most_; ++workers) {
    if (workers == best_workers_ || !may_be_better(workers)) continue;
    const auto made = planners_.find(workers);
    const bool illegal = made != planners_.end() && made->second == nullptr;
    const bool searched = searched_.contains(workers);
    if (!illegal && !(searched && made->second->proves(result.best()))) result.exact_workers = false;
  }
  result.simulations = simulations();
  return result;
}

void CountSearch::find_least_limit(PlanResult& result) {
  result.least_limit_bytes = std::numeric_limits<double>::infinity();
  for (int workers = most_; workers >= (fixed_ ? most_ : 1); --workers) {
    if (least_share_bytes(workers) >= result.least_limit_bytes) continue;
    const bool looks = workers == most_ || most_ <= kMostCounts;
    Planner* one = looks ? planner(workers) : nullptr;
    if (one != nullptr) {
      one->give({scope_.most_simulations});
      result.least_limit_exact = one->least_bytes(result.least_limit_bytes) && result.least_limit_exact;
    } else if (!looks) {
      result.least_limit_exact = false;
    }
  }
}

}  // namespace lockstep
