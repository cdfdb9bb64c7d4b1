// SPDX-License-Identifier: Apache-2.0
//
// The best plan of a measured model: `lockstep plan`.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "partitioner/make_plan.hpp"
#include "partitioner/profile_file.hpp"
#include "runtime/observe/simulation_report.hpp"
#include "runtime/session/plan_options.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

/// All that was found for one number of micro-batches and one scope.
struct Searched {
  PlanProblem problem;
  PlanResult result;
};

struct FoundPlan {
  const Searched* searched = nullptr;
  const RankedPlan* plan = nullptr;
};

struct PlanSearch {
  PlanSearch() = default;
  PlanSearch(PlanSearch&&) = default;
  PlanSearch(const PlanSearch&) = delete;  // `ranked` points into `all`
  PlanSearch& operator=(PlanSearch&&) = default;
  PlanSearch& operator=(const PlanSearch&) = delete;

  std::list<Searched> all;
  std::vector<FoundPlan> ranked;  ///< of all that the config's groups of micro-batches allow, best first
  std::vector<FoundPlan>
      by_replicas;                    ///< the best of each number of replicas, ascending: also of some that they do not
  PlanFile best;                      ///< as it is written down
  bool sets_micro_batches = false;    ///< the config has another number, and no plan changes it
  bool sets_groups = false;           ///< the same of train.gradient_groups
  std::string sets_devices;           ///< what workers.devices has to be for it; empty: it is that
  std::vector<std::string> warnings;  ///< why the costs may be others
};

/// `profile`: of the layers of the config's model. In this process alone. Throws UserError when nothing fits, or an
/// option makes no sense: it begins with the flag.
PlanSearch find_plan(const ConfigSource& source, const Profile& profile, const PlanOptions& options);
/// Lays the best plan over `source`, the same on every rank, and gives its table (plan_table). Rank 0 finds it.
/// Collective. Throws AlreadyReported.
std::string take_plan(Process& process, ConfigSource& source, const Profile& profile, const PlanOptions& options);

/// The plan's program with its costs, named as its layers.
RunTimeline simulated_timeline(const PlanSearch& search, const std::string& name);

/// What `lockstep simulate --plan` simulates: a plan file with the config that it names. Throws UserError, ConfigError.
SimulateSubject subject_of_plan(const std::string& path);

}  // namespace lockstep
