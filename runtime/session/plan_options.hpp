// SPDX-License-Identifier: Apache-2.0
//
// The flags of `lockstep plan`, and what they mean for a config and a profile.
#pragma once

#include "partitioner/problem.hpp"
#include "partitioner/profile_file.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/session/config_source.hpp"

namespace lockstep {

inline constexpr int kMostPlannedWorkers = 4096;

/// As they are written on the command line; empty: everything may be chosen.
struct PlanOptions {
  int workers = 0;
  bool all_workers = false;
  std::string memory, hosts, ranks, micro_batches, replicas, partition;
  std::vector<std::string> schedules, recomputes;
  std::vector<int> virtual_stages, placement;
};

// All throw UserError that begins with the flag.
void check_schedules(const std::vector<std::string>& given);
/// Those to choose from; empty: all.
std::vector<Recompute> recomputes_of(const PlanOptions& options, const Config& config);
/// How many, how fast, with which limits and where.
std::vector<PlannedWorker> workers_of(const PlanOptions& options, const Config& config, const Profile& profile);
/// Numbers of micro-batches to compare. `automatic`: powers of two and multiples of the workers, at most 16 per worker;
/// fewer than workers only where the batch has no more.
std::vector<int> micro_batches_of(const PlanOptions& options, bool automatic, const Config& config,
                                  const ModelGraph& graph, int workers);

/// Numbers of replicas to choose from, ascending, for so many workers and micro-batches. Nothing said: as many as the
/// config's groups of micro-batches allow.
std::vector<int> replicas_of(const PlanOptions& options, const Config& config, int micro_batches, int workers);
/// Those that the config's groups rule out, some of them: to say what they would take.
std::vector<int> more_replicas(const PlanOptions& options, const Config& config, int micro_batches, int workers);

/// "a,b,c" in its parts.
std::vector<std::string> split(const std::string& text);
/// "3,3,2": numbers >= 1.
std::vector<int> numbers(const char* flag, const std::string& text, const std::string& expected);

}  // namespace lockstep
