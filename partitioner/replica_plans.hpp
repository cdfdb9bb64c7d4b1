// SPDX-License-Identifier: Apache-2.0
//
// The search for one number of replicas. One pipeline is planned as if it had no others, then what is best of it, of
// each combination of schedule, virtual stages and recompute, is judged again as it will run: with all replicas, where
// they are, and with what they add up and send each other. Private to this folder.
#pragma once

#include "partitioner/make_plan.hpp"
#include "runtime/config/config.hpp"

namespace lockstep {

/// The workers of each replica, [replica][worker of its pipeline]: as many pipelines of equal size as there are workers
/// for. Those that belong together are on one host if that can be.
std::vector<std::vector<int>> workers_of_replicas(const std::vector<PlannedWorker>& workers, int replicas,
                                                  ReplicaPlacement order);

/// make_plan() of a problem with several replicas. Throws as that does.
PlanResult plan_replicas(const PlanProblem& problem, const PlanScope& scope);

}  // namespace lockstep
