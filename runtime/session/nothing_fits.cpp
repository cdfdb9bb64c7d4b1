// SPDX-License-Identifier: Apache-2.0
//
// What is said when no plan fits.
#include <cmath>
#include <set>

#include "runtime/base/size.hpp"
#include "runtime/session/planning.hpp"

namespace lockstep {
namespace {

std::string limits_text(const PlanProblem& problem) {
  std::set<double> limits;
  for (const PlannedWorker& worker : problem.workers) limits.insert(worker.limit_bytes);
  const auto workers = problem.workers.size();
  return concat(workers, workers == 1 ? " worker" : " workers", " of ", size_text(*limits.begin()),
                limits.size() > 1 ? concat(" to ", size_text(*limits.rbegin())) : std::string());
}

/// "; the smallest limit that would do with these cuts, the same on every worker, is 1.2 GiB (1288490188)"
std::string smallest_limit(const PlanResult& result, const char* with) {
  if (!(result.least_limit_bytes > 0) || !std::isfinite(result.least_limit_bytes)) return "";
  return concat(
      result.least_limit_exact ? "; the smallest limit that would do" : "; the smallest limit found that would do",
      with, ", the same on every worker, is ", size_text(result.least_limit_bytes), " (",
      static_cast<std::int64_t>(std::ceil(result.least_limit_bytes)), ")");
}

/// What any cuts would need.
std::string what_would_do(const PlanProblem& problem, const PlanResult& result, const char* with) {
  std::string text = smallest_limit(result, with);
  if (result.least_workers > 0)
    text += concat("; so would ", result.least_workers, " workers of this kind");
  else
    text += result.least_workers_exact ? "; no number of workers of this kind would do"
                                       : "; no number of workers of this kind was found that would do";
  if (result.layer_in_the_way >= 0)
    text += concat("; layer '", problem.graph.names[static_cast<std::size_t>(result.layer_in_the_way)],
                   "' alone needs the most bytes");
  return text;
}

/// "stage 1 (h.2 .. head) needs 2.30 GiB on worker 1, 307 MiB more than its limit"
std::string stage_in_the_way(const PlanProblem& problem, const RankedPlan& plan) {
  const Excess excess = largest_excess(problem, plan);
  const std::vector<WorkerId> rows = program_of(problem, plan.choice).row_of_stage;
  const std::vector<int> first = first_layers(plan.choice.layers_per_stage);
  std::vector<std::string> stages;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    if (rows[s].value() != excess.row) continue;
    const std::string &from = problem.graph.names[static_cast<std::size_t>(first[s])],
                      &to = problem.graph.names[static_cast<std::size_t>(first[s + 1] - 1)];
    stages.push_back(concat(s, " (", from, from == to ? "" : " .. " + to, ")"));
  }
  return concat(stages.size() == 1 ? "stage " : "stages ", join(stages, " and "),
                stages.size() == 1 ? " needs " : " need ", size_text(excess.bytes), " on worker ", excess.worker, ", ",
                size_text(excess.bytes - excess.limit), " more than its limit of ", size_text(excess.limit), " (",
                schedule_text(plan.choice), ", recompute ", to_string(plan.choice.recompute), ")");
}

std::string cuts_do_not_fit(const PlanProblem& problem, const PlanResult& result) {
  const RankedPlan& closest = result.best();
  std::string text =
      concat("the cuts are fixed, layers per stage [", join(closest.choice.layers_per_stage),
             "], and do not fit: ", stage_in_the_way(problem, closest), smallest_limit(result, " with these cuts"));
  const PlanResult& free = *result.without_cuts;
  if (!free.fits())
    return text + "; no other cuts were found that fit" + what_would_do(problem, free, " with any cuts");
  const RankedPlan& other = free.best();
  return text + concat("; others fit: [", join(other.choice.layers_per_stage), "] with ", schedule_text(other.choice),
                       ", recompute ", to_string(other.choice.recompute));
}

}  // namespace

std::string Planning::nothing_fits(const PlanProblem& problem, const PlanResult& result) const {
  if (result.without_cuts) return cuts_do_not_fit(problem, result);
  const bool sure = result.exact && result.exact_workers;
  std::string text =
      concat(sure ? "nothing fits: " : "nothing that fits was found before the search ended: ", limits_text(problem),
             what_would_do(problem, result, ""));
  if (!result.ranked.empty()) text += concat("; the closest plan ", result.best().why);
  return text;
}

}  // namespace lockstep
