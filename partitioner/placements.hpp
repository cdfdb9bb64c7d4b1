// SPDX-License-Identifier: Apache-2.0
//
// Which worker runs which row, and which ones are idle. Private to this folder.
#pragma once

#include <vector>

#include "partitioner/problem.hpp"

namespace lockstep {

struct Placements {
  std::vector<std::vector<int>> list;  ///< placement[row] = worker; the first: in order, if it may be
  bool all = true;                     ///< any other one is like one of these
};

/// Up to this many workers every order is tried.
constexpr int kMostPermutedWorkers = 5;

/// Of `rows` rows. Workers of equal kind, speed, limit and place are interchangeable, and so are ranks and hosts with
/// equal workers: of placements that are alike only the first. With more than kMostPermutedWorkers workers: in order,
/// by limit, by speed, and by host; where some are idle, those are the last ones of the fullest ranks, the slowest, or
/// those with the smallest limits. Speeds have to compare whatever the kinds (CostModel::compared_workers()).
Placements placements_of(const std::vector<PlannedWorker>& workers, int rows);

/// Two placements of the same fingerprint cost the same.
std::vector<double> fingerprint(const std::vector<PlannedWorker>& workers, const std::vector<int>& placement);

}  // namespace lockstep
