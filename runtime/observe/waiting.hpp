// SPDX-License-Identifier: Apache-2.0
//
// The rules of waiting, for every transport: how long a wait may last, and what ends it early. No torch, no MPI.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>

#include "runtime/base/error.hpp"
#include "runtime/observe/pulse.hpp"

namespace lockstep {

/// Thrown out of a wait when another worker of this process has failed: not a message for people.
class JobStopped : public Error {
 public:
  JobStopped() : Error("the job was stopped by another worker") {}
};

/// A wait lasted longer than the limit. The worker adds who waited for whom and rethrows. Exit code 4.
class WaitTimeout : public Error {
 public:
  explicit WaitTimeout(const std::string& message) : Error(message, ExitCode::watchdog) {}
};

/// Shared by all workers of a process: every wait ends when it is raised.
class StopFlag {
 public:
  void raise() { raised_.store(true, std::memory_order_release); }
  bool raised() const { return raised_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> raised_{false};
};

/// How long a wait has lasted for the one who waits: time in which its thread did not run does not count. A job that is
/// suspended and continued, or a machine that sleeps, has waited for nobody meanwhile.
class WaitClock {
 public:
  using Clock = std::chrono::steady_clock;
  /// Who waits looks far more often. A look that comes later than this was kept from coming: it counts for so much.
  static constexpr std::chrono::milliseconds kLongestGap{100};

  explicit WaitClock(Clock::time_point start = Clock::now()) : last_(start) {}
  /// The time waited up to now.
  Clock::duration look(Clock::time_point now = Clock::now()) {
    waited_ += std::min<Clock::duration>(now - last_, kLongestGap);
    last_ = now;
    return waited_;
  }

 private:
  Clock::time_point last_;
  Clock::duration waited_{0};
};

/// Judges waits that have become long: the watchdog of a worker (watchdog.hpp).
class WaitGuard {
 public:
  virtual ~WaitGuard() = default;
  /// A new wait: called before each.
  virtual void begin_wait() = 0;
  /// A wait has lasted `waited`: throws WaitTimeout, or says how long it may have lasted when it asks again.
  /// `transfer`: what is waited for as the transport knows it, or "".
  virtual std::chrono::milliseconds overdue(std::chrono::milliseconds waited, const std::string& transfer) = 0;
};

/// How long a wait may last, and what ends it early.
struct WaitLimits {
  const StopFlag* stop = nullptr;              ///< never null while waiting
  std::chrono::milliseconds timeout{300'000};  ///< with a guard: when it is asked first
  WaitGuard* guard = nullptr;                  ///< null: a wait that lasts `timeout` is over
  Pulse* pulse = nullptr;                      ///< of the waiting worker; may be null

  /// Called by every transport between two looks: a sign of life.
  void alive() const {
    if (pulse) pulse->alive();
  }
  /// The waiting worker itself makes progress, or turns to something else.
  void moved() const {
    if (pulse) pulse->beat();
  }
  void turn_to(Activity what) const {
    if (pulse) pulse->turn_to(what);
  }
  /// Called when the wait has lasted `timeout`, or what the last call returned. `waited`: of a WaitClock.
  std::chrono::milliseconds overdue(std::chrono::steady_clock::duration waited, const std::string& transfer) const {
    const auto waited_ms = std::chrono::duration_cast<std::chrono::milliseconds>(waited);
    if (guard) return guard->overdue(waited_ms, transfer);
    throw WaitTimeout(concat(transfer, transfer.empty() ? "" : ": ", "waited ", timeout.count(), " ms"));
  }
};

/// For who decides what a job does next, and has nothing for it to do: waits, for as long as it takes, until `ready`
/// says that there is something. `ready(time)` waits for that at most so long. Nobody who waits for this worker gives
/// up meanwhile, or complains. Microseconds that it took; throws JobStopped.
template <typename Ready>
double idle_until(const WaitLimits& limits, const Ready& ready) {
  constexpr std::chrono::milliseconds kLook{50};  // a sign of life, also for the shortest comm.watchdog_s
  const auto start = std::chrono::steady_clock::now();
  limits.turn_to(Activity::idle);
  while (!ready(kLook)) {
    if (limits.stop && limits.stop->raised()) throw JobStopped();
    limits.turn_to(Activity::idle);
  }
  limits.turn_to(Activity::none);
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace lockstep
