// SPDX-License-Identifier: Apache-2.0
//
// What happened to a run: read from its flight recorders, after the fact or while it runs. `lockstep why` prints it,
// and `lockstep launch` does by itself when a job has failed.
//
// A failed worker has written its message, so it is first. When a rank was killed nothing could be written: mpiexec
// says which process ended first, if `launch` was there to hear it; else the process that fell silent first is named,
// which is a likelihood: one inside a long layer is silent too, and says so.
#pragma once

#include <string>
#include <vector>

#include "runtime/engine/flight_recorder.hpp"

namespace lockstep {

/// What the launcher said of the process that ended first. Kept in the run folder for later calls of `why`.
struct LauncherWord {
  int pid = 0;
  int code = 0;  ///< of the process: an exit code, or the signal
  std::string host;
};

/// One rank failed and was elected to speak: the file `first-failure` of the recorder folder.
struct FirstFailure {
  int rank = 0, code = 0;
  std::string host, message;
};

struct Story {
  enum class End { running, done, failed, killed };
  End end = End::done;
  std::string headline;            ///< one line: who was first, doing what
  std::vector<std::string> lines;  ///< a line per worker
};

/// Throws UserError when the folder has no recorders.
Story story_of(const std::string& run_folder);
/// The story as it is printed. `checkpoint`: the newest one that can be resumed from; "" when there is none.
std::string text_of(const Story& story, const std::string& checkpoint);

/// Keeps what the launcher said.
void remember(const std::string& run_folder, const LauncherWord& word);

/// The first rank to call it gets true, all others false. Writes who failed. Works on any file system with exclusive
/// creation; where it cannot be made at all everybody gets true.
bool first_to_fail(const std::string& run_folder, const FirstFailure& failure);
std::string first_failure_file(const std::string& run_folder);
/// rank 0 and code 0 when there is none.
FirstFailure read_first_failure(const std::string& run_folder);

/// An empty recorder folder; an older one becomes recorder.1, recorder.2, ... Throws UserError.
void fresh_recorder_folder(const std::string& run_folder);

}  // namespace lockstep
