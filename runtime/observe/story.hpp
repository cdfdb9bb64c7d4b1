// SPDX-License-Identifier: Apache-2.0
//
// What happened to a run: read from its flight recorders, after the fact or while it runs. `lockstep why` prints it,
// and `lockstep launch` does by itself when a job has failed.
//
// A job that came to its end has said how, and a failed worker has written its message. When a rank was killed nothing
// could be written, and the launcher kills the others at once. Certain is what `launch` saw: which of the ranks of its
// own host ended first. Else the process that fell silent first is named, which is a likelihood: one inside a long
// layer is silent too, and says so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/observe/flight_recorder.hpp"

namespace lockstep {

/// A rank's process, and how it ended, for people: "SIGKILL", "exit code 3"; empty: not known.
struct EndedRank {
  int pid = 0;
  std::string host, how;
};

/// What `launch` knows of the end of ranks. Kept in the run folder for later calls of `why`.
struct RankEnds {
  std::vector<EndedRank> seen;  ///< those of its own host, in the order in which they ended
  EndedRank reported;           ///< one that mpiexec did not kill, and that it says crashed; pid 0: none
};

/// How a job ended that was not cut short, as it said itself.
struct JobEnd {
  int code = 0;
  std::string message;
};

/// One rank failed and was elected to speak: the file `first-failure` of the recorder folder.
struct FirstFailure {
  int rank = 0, code = 0;
  std::string host, message;
};

/// The rank that was killed first, or vanished.
struct FirstKilled {
  int rank = 0;
  std::string how;  ///< as EndedRank's
  bool certain = false;
};

struct Story {
  enum class End { running, done, failed, killed };  ///< done: by itself, whatever the exit code
  End end = End::done;
  std::string headline;                          ///< one line: who was first, doing what
  std::vector<std::string> lines;                ///< a line per worker
  std::optional<FirstKilled> first_killed = {};  ///< End::killed; none: not even a likelihood
};

/// Throws UserError when the folder has no recorders.
Story story_of(const std::string& run_folder);
/// The story as it is printed. `checkpoint`: the newest one that can be resumed from; "" when there is none.
std::string text_of(const Story& story, const std::string& checkpoint);

/// Keep what `launch` knows, and what the job says.
void remember(const std::string& run_folder, const RankEnds& ends);
void remember(const std::string& run_folder, const JobEnd& end);

/// "SIGKILL"; "signal 99" for one without a name.
std::string signal_name(int number);

/// The first rank to call it gets true, all others false. Writes who failed. Works on any file system with exclusive
/// creation; where it cannot be made at all everybody gets true.
bool first_to_fail(const std::string& run_folder, const FirstFailure& failure);
std::string first_failure_file(const std::string& run_folder);
/// rank 0 and code 0 when there is none.
FirstFailure read_first_failure(const std::string& run_folder);

/// An empty recorder folder; an older one becomes recorder.1, recorder.2, ... Throws UserError.
void fresh_recorder_folder(const std::string& run_folder);

}  // namespace lockstep
