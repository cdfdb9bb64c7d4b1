// SPDX-License-Identifier: Apache-2.0
//
// mpiexec with a memory. It starts the ranks, passes signals on, says what happened when a job fails, and starts it
// again from its last good checkpoint: as it was, or without the ranks and hosts that were lost.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/config.hpp"
#include "runtime/host/host_list.hpp"
#include "runtime/observe/story.hpp"

namespace lockstep {

struct LaunchOptions {
  int ranks = 1;
  int restarts = 0;                  ///< of a job that failed
  int ranks_after_restart = 0;       ///< 0: as many
  bool shrink = false;               ///< a restart leaves out what was lost; not with ranks_after_restart
  HostList hosts;                    ///< of the ranks; empty: mpiexec decides
  std::string mpiexec = "mpiexec";   ///< with its own flags, if it needs any
  std::vector<std::string> command;  ///< train CONFIG ...
  std::string run_folder;            ///< of that

  // With `shrink`; take_job() fills them in:
  int replicas = 1, pipeline_workers = 1;
  int gradient_groups = 0;     ///< that a start without a checkpoint needs; 0: the config says it
  bool sets_per_rank = false;  ///< workers.per_rank is a number, which gives way to auto
};

/// What launch has to know of the config of `options.command`. ConfigError where it cannot be run on fewer ranks.
void take_job(LaunchOptions& options, const Config& config);

/// A command line without quotes, in its words.
std::vector<std::string> words_of(const std::string& text);

/// Returns the exit code. Throws UserError.
int launch(const LaunchOptions& options);

/// The story as it is printed, with the newest checkpoint that the run can be resumed from.
std::string story_text(const Story& story, const std::string& run_folder);

}  // namespace lockstep
