// SPDX-License-Identifier: Apache-2.0
//
// The search over numbers of workers. All of them are searched first, as thoroughly as if nothing else were allowed: so
// no answer is worse. Of smaller numbers
//
//   - none is looked at whose workers could not even do the work in the time of the best plan so far;
//   - up to kMostCounts workers each other one is searched;
//   - of more, some are sampled: those from which on the busiest worker has less to do, and their neighbours; the most
//     that several stages each, or a schedule of two micro-batches a worker, allow; those of whole hosts; those that
//     leave out the slower workers, or those with smaller limits. Then the neighbours of the best; and the best is
//     searched.
//
// Private to this folder.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "partitioner/planner.hpp"
#include "runtime/base/error.hpp"

namespace lockstep {

class CountSearch {
 public:
  /// References are kept. Throws UserError and ScheduleError as make_plan().
  CountSearch(const PlanProblem& problem, const PlanScope& scope);

  /// All of the result but what is for when nothing fits, and the reasons.
  PlanResult best();
  /// Of a result in which nothing fits: least_limit_bytes.
  void find_least_limit(PlanResult& result);
  long simulations() const;

 private:
  /// No plan of so many workers takes less: the work of the model, evenly spread over the fastest, each as if it were
  /// always as good as with the layers that suit it best.
  double least_period_us(int workers) const;
  /// No plan of so many workers needs less on its fullest worker.
  double least_share_bytes(int workers) const;
  /// The planner of so many workers; null: no shape is legal.
  Planner* planner(int workers);
  bool may_be_better(int workers) const;
  SearchBudget budget(int share) const;
  /// The seeds of a number that may be better, with a part of the budget.
  void sample(int workers, int share);
  /// The rest of its search, with what is left of its budget.
  void search(int workers);
  void search_all_smaller();
  void search_some_smaller();
  void note(int workers);
  std::vector<int> promising() const;
  void add_fast(std::set<int>& chosen) const;

  const PlanProblem& problem_;
  const PlanScope& scope_;
  PlanTables tables_;
  std::vector<double> best_speeds_;  ///< of the workers, the fastest first
  int most_ = 0;                     ///< workers
  bool fixed_ = false;               ///< none may be idle
  std::map<int, std::unique_ptr<Planner>> planners_;
  std::unique_ptr<UserError> refusal_;
  int best_workers_ = 0;    ///< 0: no plan yet
  std::set<int> searched_;  ///< numbers of workers
};

}  // namespace lockstep
