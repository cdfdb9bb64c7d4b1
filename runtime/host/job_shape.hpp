// SPDX-License-Identifier: Apache-2.0
//
// How many ranks and replicas a job has, and how many are left for it without what was lost: arithmetic only.
//
// A job has R replicas of P workers on n ranks, at most w = ceil(R P / n) on each. With n' ranks that are left it has
// R' = min(R, floor(n' w / P)) replicas on min(n', R' P) ranks; where not even one fits, one on n' ranks, with more
// workers on each. What replicas compute does not depend on how many there are (train.gradient_groups).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/host/host_list.hpp"

namespace lockstep {

struct JobShape {
  HostList hosts;  ///< room for ranks, filled in order; a job without a list of hosts: one without a name
  int ranks = 1;
  int replicas = 1, pipeline_workers = 1;  ///< R, P

  int most_on_a_rank() const { return (replicas * pipeline_workers + ranks - 1) / ranks; }
  /// The index of its host; -1: there is no room for it.
  int host_of_rank(int rank) const;
};

/// A rank that a signal ended first.
struct LostRank {
  int rank = 0;
  std::string how;  ///< "SIGKILL"; empty: not known
  bool certain = true;
};

struct Lost {
  std::vector<std::string> hosts;  ///< that do not answer
  std::vector<LostRank> ranks;     ///< of other hosts
  bool empty() const { return hosts.empty() && ranks.empty(); }
};

/// The job without what was lost; none: there is no room for any rank. A rank takes its room with it.
std::optional<JobShape> without(const JobShape& before, const Lost& lost);

/// "host b (no answer), rank 2 (SIGKILL)"
std::string text_of(const Lost& lost);

/// "3 ranks, 3 replicas of 1 worker", and what else the user should know of a job that had the shape `before`.
std::string text_of(const JobShape& shape, const JobShape& before);

}  // namespace lockstep
