// SPDX-License-Identifier: Apache-2.0
#include "partitioner/planner.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/error.hpp"
#include "runtime/schedule/auto.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kSame = 1e-9;

/// Of partial cuts, for one placement of one combination.
constexpr long kMostPartialCuts = 250000;

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

double fullest(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

}  // namespace

Excess largest_excess(const PlanProblem& problem, const RankedPlan& plan) {
  Excess largest;
  for (std::size_t row = 0; row < plan.simulated.total_bytes.size(); ++row) {
    const std::size_t worker = plan.choice.worker_of(row);
    const double bytes = plan.simulated.total_bytes[row], limit = problem.workers[worker].limit_bytes;
    if (bytes - limit > largest.bytes - largest.limit)
      largest = {static_cast<int>(row), static_cast<int>(worker), bytes, limit};
  }
  return largest;
}

bool is_better(const RankedPlan& a, const RankedPlan& b, const PlanProblem& problem) {
  if (a.fits != b.fits) return a.fits;
  if (!a.fits) {
    const Excess of_a = largest_excess(problem, a), of_b = largest_excess(problem, b);
    const int excess = compare_rounded(of_a.bytes - of_a.limit, of_b.bytes - of_b.limit);
    if (excess != 0) return excess < 0;
  }
  const int speed = compare_speed(a.simulated, b.simulated);
  if (speed != 0) return speed < 0;
  if (a.simulated.total_bytes.size() != b.simulated.total_bytes.size())
    return a.simulated.total_bytes.size() < b.simulated.total_bytes.size();
  return compare_rounded(fullest(a.simulated.total_bytes), fullest(b.simulated.total_bytes)) < 0;
}

Planner::Planner(PlanTables& tables, const PlanScope& scope, int workers, SearchBudget budget)
    : tables_(tables),
      model_(tables.model),
      problem_(tables.model.problem()),
      scope_(scope),
      workers_(workers),
      left_(budget) {
  placements_ =
      scope.placement.empty() ? placements_of(model_.compared_workers(), workers) : Placements{{scope.placement}, true};
  add_combinations();
}

// ---- the scope ----

void Planner::add_combinations() {
  const int layers = model_.layers();
  if (workers_ > layers)
    throw UserError(concat("plan: the model has ", layers, " layers for ", workers_,
                           " workers, and every worker needs at least one; use at most ", layers, " workers"));
  std::vector<std::string> schedules = scope_.schedules;
  if (schedules.empty())
    for (const ScheduleGenerator& generator : schedule_generators()) schedules.push_back(generator.name);
  const std::vector<int> virtual_stages =
      scope_.virtual_stages.empty() ? std::vector<int>{1, 2, 4} : scope_.virtual_stages;
  const std::vector<Recompute> recomputes =
      scope_.recomputes.empty() ? std::vector<Recompute>{Recompute::never, Recompute::except_last, Recompute::always}
                                : scope_.recomputes;
  std::vector<std::string> refused;
  for (const std::string& schedule : schedules) {
    for (const int stages : virtual_stages) {
      try {
        Schedule rows = make_schedule(schedule, {workers_, stages, problem_.micro_batches});
        const auto fixed = static_cast<int>(scope_.layers_per_stage.size());
        if (rows.stages > layers) {
          refused.push_back(concat(schedule, " with ", stages, " stages a worker needs ", rows.stages,
                                   " layers, the model has ", layers));
        } else if (fixed > 0 && rows.stages != fixed) {
          refused.push_back(concat(schedule, " with ", stages, " stages a worker has ", rows.stages,
                                   " stages, the given partition ", fixed));
        } else {
          for (const Recompute recompute : recomputes) add(schedule, stages, recompute, rows);
        }
      } catch (const ScheduleError& error) {
        if (find_generator(schedule) == nullptr) throw;
        refused.emplace_back(error.what());
      }
    }
  }
  if (combinations_.empty()) throw UserError(concat("plan: no shape is legal: ", join(refused, "; ")));
}

void Planner::add(const std::string& schedule, int virtual_stages, Recompute recompute, Schedule rows) {
  Combination& combination = combinations_.emplace_back(
      Combination{schedule, virtual_stages, recompute, ScheduleFacts(std::move(rows), recompute), {}, {}, {}, false});
  for (const std::vector<int>& placement : placements_.list) {
    if (!scope_.layers_per_stage.empty())
      model_.check({scope_.layers_per_stage, virtual_stages, schedule, recompute, placement});
    combination.searches.emplace_back(runs(virtual_stages), combination.facts, placement);
  }
  if (scope_.layers_per_stage.empty() && !scope_.placement.empty()) {
    std::vector<int> any(at(combination.facts.stages()), 1);
    any.back() += model_.layers() - combination.facts.stages();
    model_.check({any, virtual_stages, schedule, recompute, scope_.placement});
  }
}

// ---- one plan ----

long Planner::cells(const Combination& combination) const {
  return static_cast<long>(combination.facts.stages()) * problem_.micro_batches;
}

bool Planner::may_simulate(const Combination& combination) const {
  // Of the first search every combination has at least one plan to show.
  return (!combination.best && known_ == nullptr) || (left_.simulations > 0 && left_.cells >= cells(combination));
}

/// True when it is the combination's best so far.
bool Planner::try_cut(Combination& combination, CutSearch& search, const std::vector<int>& layers_per_stage) {
  std::vector<int> key = search.placement();
  key.insert(key.end(), layers_per_stage.begin(), layers_per_stage.end());
  if (!combination.tried.insert(std::move(key)).second) return false;
  RankedPlan plan;
  plan.choice = {layers_per_stage, combination.virtual_stages, combination.schedule, combination.recompute,
                 search.placement()};
  const Schedule& schedule = combination.facts.schedule();
  plan.simulated = simulate(model_.program(plan.choice, schedule), model_.costs(plan.choice, schedule), 0);
  plan.fits = largest_excess(problem_, plan).row < 0;
  ++simulations_;
  --left_.simulations;
  left_.cells -= cells(combination);
  least_bytes_ = std::min(least_bytes_, fullest(plan.simulated.total_bytes));
  if (combination.best && !is_better(plan, *combination.best, problem_)) return false;
  combination.best = std::move(plan);
  return true;
}

const RankedPlan* Planner::best_found() const {
  const RankedPlan* best = nullptr;
  for (const Combination& combination : combinations_)
    if (combination.best && (best == nullptr || is_better(*combination.best, *best, problem_)))
      best = &*combination.best;
  return best;
}

// ---- the search ----

void Planner::seed(Combination& combination) {
  if (!scope_.layers_per_stage.empty()) {
    for (CutSearch& search : combination.searches)
      if (may_simulate(combination)) try_cut(combination, search, scope_.layers_per_stage);
    return;
  }
  const bool beats_known = known_ != nullptr && known_->fits;
  std::vector<CutSearch*> order;
  for (CutSearch& search : combination.searches) order.push_back(&search);
  std::stable_sort(order.begin(), order.end(), [](CutSearch* a, CutSearch* b) {
    return a->least_bound(Goal::fastest) < b->least_bound(Goal::fastest);
  });
  for (CutSearch* search : order) {
    const std::vector<int> cut = search->best_bottleneck(Goal::fastest);
    if (cut.empty() || !may_simulate(combination)) break;
    if (search->least_bound(Goal::fastest) > cutoff(combination, Goal::fastest, beats_known)) break;
    try_cut(combination, *search, cut);
    if (may_simulate(combination)) try_cut(combination, *search, search->best_bottleneck(Goal::balanced));
  }
  // No cut fits, or the one with the best bottleneck does not after all: the one that is closest to it.
  if ((!combination.best || !combination.best->fits) && !beats_known)
    try_cut(combination, *order.front(), order.front()->best_bottleneck(Goal::smallest));
}

/// The worst bound that can still be better, or as good.
double Planner::cutoff(const Combination& combination, Goal goal, bool against_all) const {
  if (goal == Goal::smallest) return least_bytes_ * (1 - 2e-12);  // bounds are that much below what they bound
  const RankedPlan* best = against_all ? best_found() : combination.best ? &*combination.best : nullptr;
  if (against_all && known_ != nullptr && (best == nullptr || is_better(*known_, *best, problem_))) best = known_;
  return best != nullptr && best->fits ? best->simulated.period_us * (1 + kSame) : kInfinite;
}

bool Planner::prove(Combination& combination, Goal goal, bool against_all) {
  std::vector<Candidate> candidates;
  std::vector<CandidateCut> cuts;
  const double worst = cutoff(combination, goal, against_all);
  for (CutSearch& search : combination.searches) {
    cuts.clear();
    if (!scope_.layers_per_stage.empty()) {
      cuts.push_back({scope_.layers_per_stage, search.bound(goal, scope_.layers_per_stage)});
    } else {
      if (search.least_bound(goal) > worst) continue;
      long steps = std::min(left_.partial_cuts, kMostPartialCuts);
      const long before = steps;
      const auto affordable = static_cast<std::size_t>(std::max(left_.cells, 0L) / cells(combination));
      const bool all = search.candidates(goal, worst, affordable, steps, cuts);
      left_.partial_cuts -= before - std::max(steps, 0L);
      if (!all) return false;
    }
    for (CandidateCut& cut : cuts) candidates.push_back({std::move(cut), &search});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cut.bound < b.cut.bound; });
  for (const Candidate& candidate : candidates) {
    if (candidate.cut.bound > cutoff(combination, goal, against_all)) break;
    if (!may_simulate(combination)) return false;
    try_cut(combination, *candidate.search, candidate.cut.layers_per_stage);
  }
  return true;
}

CutSearch& Planner::search_of(Combination& combination, const std::vector<int>& placement) {
  for (CutSearch& search : combination.searches)
    if (search.placement() == placement) return search;
  return combination.searches.emplace_back(runs(combination.virtual_stages), combination.facts, placement);
}

/// Layers from one stage to another, those in between move along. First improvement, from the moves whose bounds
/// promise most.
bool Planner::move_boundaries(Combination& combination, long& most_cells) {
  const std::vector<int> from = combination.best->choice.layers_per_stage;
  CutSearch& search = search_of(combination, combination.best->choice.placement);
  const double most = cutoff(combination, Goal::fastest, false);
  std::vector<CandidateCut> moves;
  const auto add_move = [&](std::size_t to, std::size_t out_of, int layers) {
    std::vector<int> counts = from;
    counts[to] += layers;
    counts[out_of] -= layers;
    if (counts[out_of] < 1) return;
    const double bound = search.bound(Goal::fastest, counts);
    if (bound > most || (combination.best->fits && !search.may_fit(counts))) return;
    moves.push_back({std::move(counts), bound});
  };
  for (std::size_t a = 0; a < from.size(); ++a)
    for (std::size_t b = 0; b < from.size(); ++b)
      for (const int layers : {1, 2, 4})
        if (a != b && (layers == 1 || std::max(a, b) - std::min(a, b) == 1)) add_move(a, b, layers);
  std::stable_sort(moves.begin(), moves.end(),
                   [](const CandidateCut& a, const CandidateCut& b) { return a.bound < b.bound; });
  for (const CandidateCut& move : moves) {
    if (most_cells < cells(combination) || !may_simulate(combination)) return false;
    most_cells -= cells(combination);
    if (try_cut(combination, search, move.layers_per_stage)) return true;
  }
  return false;
}

bool Planner::swap_rows(Combination& combination, long& most_cells) {
  if (placements_.all) return false;
  const std::vector<int> from = combination.best->choice.placement;
  for (std::size_t a = 0; a < from.size(); ++a) {
    for (std::size_t b = a + 1; b < from.size(); ++b) {
      std::vector<int> placement = from;
      std::swap(placement[a], placement[b]);
      const PlannedWorker &one = problem_.workers[at(from[a])], &other = problem_.workers[at(from[b])];
      // Hosts alone: the orders of placements_of() keep neighbours together.
      if (one.speed == other.speed && one.limit_bytes == other.limit_bytes && one.kind == other.kind) continue;
      left_.swapped_stages -= static_cast<long>(combination.facts.stages()) * model_.layers();
      if (left_.swapped_stages < 0) return false;
      CutSearch search(runs(combination.virtual_stages), combination.facts, placement);
      const std::vector<int> cut = search.best_bottleneck(Goal::fastest);
      if (cut.empty() || search.bound(Goal::fastest, cut) > cutoff(combination, Goal::fastest, false)) continue;
      if (most_cells < cells(combination) || !may_simulate(combination)) return false;
      most_cells -= cells(combination);
      if (try_cut(combination, search, cut)) return true;
    }
  }
  return false;
}

void Planner::improve(Combination& combination, long most_cells) {
  while (move_boundaries(combination, most_cells) || swap_rows(combination, most_cells)) continue;
}

std::vector<Planner::Combination*> Planner::in_order() {
  std::vector<Combination*> order;
  for (Combination& combination : combinations_)
    if (combination.best) order.push_back(&combination);
  std::stable_sort(order.begin(), order.end(),
                   [this](Combination* a, Combination* b) { return is_better(*a->best, *b->best, problem_); });
  return order;
}

double Planner::least_bound(Combination& combination, Goal goal) {
  double least = kInfinite;
  for (CutSearch& search : combination.searches) least = std::min(least, search.least_bound(goal));
  return least;
}

void Planner::seed(const RankedPlan* known) {
  known_ = known;
  for (Combination& combination : combinations_) seed(combination);
}

void Planner::search() {
  const bool free = scope_.layers_per_stage.empty();
  for (Combination* combination : in_order())
    if (free) improve(*combination, left_.cells / 16);  // the better the plan, the fewer cuts to look at
  std::vector<Combination*> too_large;
  for (Combination* combination : in_order()) {
    combination->proved = prove(*combination, Goal::fastest, true);
    if (!combination->proved) too_large.push_back(combination);
  }
  for (Combination& combination : combinations_)
    if (!combination.best) combination.proved = prove(combination, Goal::fastest, true);
  for (Combination* combination : too_large)
    if (free) improve(*combination, left_.cells / 2);
}

bool Planner::proves(const RankedPlan& best) {
  return placements_.all && std::all_of(combinations_.begin(), combinations_.end(), [&](Combination& combination) {
           if (combination.proved) return true;
           // What is not proved may be out of reach all the same.
           const double least = least_bound(combination, Goal::fastest);
           return least == kInfinite || (best.fits && least > best.simulated.period_us * (1 + kSame));
         });
}

PlanResult Planner::ranked() {
  known_ = nullptr;
  for (Combination& combination : combinations_)
    if (!combination.best) seed(combination);
  for (Combination* combination : in_order())
    if (combination->proved) prove(*combination, Goal::fastest, false);
  PlanResult result;
  for (Combination* combination : in_order()) result.ranked.push_back(*combination->best);
  result.exact = proves(result.ranked.front());
  return result;
}

// ---- when nothing fits ----

bool Planner::anything_fits(bool& sure) {
  sure = true;
  for (Combination& combination : combinations_) {
    for (CutSearch& search : combination.searches) {
      if (!scope_.layers_per_stage.empty()) {
        try_cut(combination, search, scope_.layers_per_stage);
      } else {
        if (search.least_bound(Goal::fastest) == kInfinite) continue;
        try_cut(combination, search, search.best_bottleneck(Goal::smallest));
        if (!combination.best->fits) try_cut(combination, search, search.best_bottleneck(Goal::fastest));
      }
      if (combination.best->fits) return true;
    }
  }
  if (!scope_.layers_per_stage.empty()) return false;
  for (Combination& combination : combinations_) {
    sure = prove(combination, Goal::fastest, false) && sure;  // until a plan fits: then only better ones
    if (combination.best && combination.best->fits) return true;
  }
  sure = sure && placements_.all;
  return false;
}

bool Planner::least_bytes(double& bytes) {
  least_bytes_ = std::min(least_bytes_, bytes);
  for (Combination& combination : combinations_)
    for (CutSearch& search : combination.searches) {
      if (!scope_.layers_per_stage.empty() || search.least_bound(Goal::smallest) >= least_bytes_) continue;
      if (may_simulate(combination)) try_cut(combination, search, search.best_bottleneck(Goal::smallest));
    }
  bool exact = placements_.all;
  for (Combination& combination : combinations_) exact = prove(combination, Goal::smallest, true) && exact;
  bytes = least_bytes_;
  return exact;
}

}  // namespace lockstep
