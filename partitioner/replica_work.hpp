// SPDX-License-Identifier: Apache-2.0
//
// What the replicas of a stage do for each other, added up by row: BucketWork as a planner wants it.
#pragma once

#include <vector>

#include "runtime/schedule/bucket_work.hpp"
#include "runtime/schedule/costs.hpp"

namespace lockstep {

/// By row, the same number where workers share the memory that weights are in (Wiring::memory_of_row); `central`: all
/// do, whatever they compute on.
std::vector<int> memories_of_weights(const std::vector<WorkerPlace>& places, bool central);

/// By row: what it does of the work on the gradients and weights of its stages, in elements.
struct WorkShares {
  std::vector<double> elements;          ///< that have gradients, of all parameters that the row trains
  std::vector<double> updated;           ///< of these by the row itself
  std::vector<double> added;             ///< elements added to others
  std::vector<double> stored;            ///< of all parameters that the row trains, with gradients or not
  std::vector<double> stored_in_memory;  ///< of these, what is updated by all rows that share its memory
};

/// Of wiring no more than rows and memories are read.
WorkShares work_shares(const Topology& topology, const Wiring& wiring);

/// 1 of nothing.
double share_of(double part, double all);

}  // namespace lockstep
