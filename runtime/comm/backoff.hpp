// SPDX-License-Identifier: Apache-2.0
//
// How a thread waits for a message without burning a core: it polls in a short spin, because the peer is often just
// about to act, then sleeps between polls, for longer the longer it has waited. One Backoff object is one wait.
//
// Why not yield: hydra starts each rank in a session of its own, and Linux autogroup makes each session a scheduling
// group, so a yielding rank still gets its full share; 7 of them on 2 cores slow a computing rank 4x.
#pragma once

#include <chrono>

namespace lockstep {

/// Whether every waiting thread has a core of its own, or computing threads need the core it waits on.
enum class Cores { own, shared };

class Backoff {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Backoff(Cores cores = Cores::shared);

  /// True while it is worth to poll again at once.
  bool spin();
  /// Sleeps a small part of the time waited so far, within bounds that depend on the cores. The first call sets the
  /// timer slack of this thread to 1 ns; the kernel's default of 50 us would come on top of each sleep.
  void sleep();
  Clock::duration waited() const { return Clock::now() - start_; }

 private:
  const Cores cores_;
  Clock::time_point start_;
  bool exact_timer_ = false;
};

}  // namespace lockstep
