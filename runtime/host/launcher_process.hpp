// SPDX-License-Identifier: Apache-2.0
//
// One start of a job: mpiexec as a child in a process group of its own, so that a Ctrl-C, or a terminal that hangs up,
// reaches us alone; with what it and the ranks say, and how they end. It ends when we are killed.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/console.hpp"
#include "runtime/observe/story.hpp"

namespace lockstep {

struct LauncherEnd {
  int code = 0;                ///< as of a shell: 128 + signal when mpiexec itself was killed
  RankEnds ranks;              ///< how they ended, as far as it was seen
  bool ranks_started = false;  ///< they made flight recorders, which are now those of the run folder
  bool was_overdue = false;    ///< mpiexec did not end by itself when its job had failed: we ended it
};

/// Runs `line` to its end; `program`: what the ranks run. One at a time. Throws Error.
LauncherEnd run_launcher(const std::vector<std::string>& line, const std::string& run_folder,
                         const std::string& program, Console& console);

/// Passes a signal on to the mpiexec that runs, if any does: the ranks stop in the same way for all of them; mpiexec
/// dies of HUP, and kills the ranks at a second INT. From any thread.
void signal_launcher(int number);

}  // namespace lockstep
