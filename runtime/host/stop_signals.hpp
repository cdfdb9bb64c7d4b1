// SPDX-License-Identifier: Apache-2.0
//
// The signals that ask a long job to stop: TERM, INT, USR1, and HUP of a terminal that hangs up, unless HUP was ignored
// (nohup).
//
// Until a job says that it can be asked they mean: leave at once. Then the first one asks, and those that follow within
// a second are the same request: a batch system's warning and the TERM behind it, a Ctrl-C that comes from the terminal
// and through the launcher. A later one means: leave at once.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

namespace lockstep {

/// One at a time. Signals that come when it is gone still belong to its requests: who was told to stop and has is not
/// killed by an echo.
class StopSignals {
 public:
  using Action = std::function<void(int signal)>;
  /// Both actions are called on a thread of their own, where they may do what a signal handler must not.
  explicit StopSignals(Action leave);
  /// From here on the first signal asks.
  void ask(Action first);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Raised by the signal that asks.
  static const std::atomic<bool>& asked();
  /// The signal that asked to leave at once; 0: none has.
  static int insisted();

 private:
  void listen();
  Action leave_, first_;
  std::thread listener_;
};

}  // namespace lockstep
