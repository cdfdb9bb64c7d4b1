// SPDX-License-Identifier: Apache-2.0
//
// Work on the files of a checkpoint, on a thread of its own, and the wait for it. No torch.
//
// Also where the worker waits at once: a thread that hangs in a write or an fsync can watch nothing. So the wait for a
// save is a wait like any other: it ends when the job stops, and the watchdog judges it, by a rule of its own: what is
// written, read or synced is progress. The waiting worker's heart beats with it, which is how all others know.
#pragma once

#include <functional>
#include <memory>

#include "runtime/checkpoint/durable_files.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep {

class SaveTask {
 public:
  /// Calls its argument after every piece of a file, and owns all that it touches: a thread that stands still outlives
  /// the job.
  using Work = std::function<void(const FileProgress& progress)>;

  /// Begins. `patience`: after so long without a piece the destructor leaves the thread to itself.
  SaveTask(Work work, std::chrono::milliseconds patience);
  /// After a failure elsewhere: what is being written is written to its end, unless it stands still.
  ~SaveTask();
  SaveTask(const SaveTask&) = delete;
  SaveTask& operator=(const SaveTask&) = delete;

  bool is_done() const;
  /// Until it is done. Throws what the work threw, JobStopped, or what the guard throws. The worker's own thread.
  void wait(const WaitLimits& limits) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::chrono::milliseconds patience_;
};

}  // namespace lockstep
