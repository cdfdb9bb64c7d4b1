// SPDX-License-Identifier: Apache-2.0
//
// The signals that ask a long job to stop: TERM, INT, USR1, and HUP of a terminal that hangs up, unless HUP was ignored
// when we were started (nohup).
//
// The first one asks. Those that follow within a second are the same request: a batch system's warning and the TERM
// behind it, a Ctrl-C that comes from the terminal and through the launcher. A later one means: leave at once.
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
  /// `first` and `again` are called on a thread of their own, where they may do what a signal handler must not.
  StopSignals(Action first, Action again);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Raised by the first signal, at once.
  static const std::atomic<bool>& asked();
  /// The signal that asked to leave at once; 0: none has.
  static int insisted();

 private:
  void listen(const Action& first, const Action& again);
  std::thread listener_;
};

}  // namespace lockstep
