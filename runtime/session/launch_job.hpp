// SPDX-License-Identifier: Apache-2.0
//
// mpiexec with a memory. It starts the ranks, passes signals on, says what happened when a job fails, and starts it
// again from its last good checkpoint.
//
// mpiexec is a child in a process group of its own: a Ctrl-C, or a terminal that hangs up, reaches us alone, and is
// passed on.
#pragma once

#include <string>
#include <vector>

#include "runtime/observe/story.hpp"

namespace lockstep {

struct LaunchOptions {
  int ranks = 1;
  int restarts = 0;                  ///< of a job that failed
  int ranks_after_restart = 0;       ///< 0: as many
  std::string mpiexec = "mpiexec";   ///< with its own flags, if it needs any
  std::vector<std::string> command;  ///< train CONFIG ...
  std::string run_folder;            ///< of that
};

/// Returns the exit code. Throws UserError.
int launch(const LaunchOptions& options);

/// The story as it is printed, with the newest checkpoint that the run can be resumed from.
std::string story_text(const Story& story, const std::string& run_folder);

}  // namespace lockstep
