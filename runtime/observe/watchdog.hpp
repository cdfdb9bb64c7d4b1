// SPDX-License-Identifier: Apache-2.0
//
// The watchdog of one worker: decides what a long wait means, from the heartbeats of the job. No torch.
//
// Worker 0 may wait for worker 1, which waits for worker 2, which computes: so it follows the chain of who waits for
// whom. Somebody on it has made progress within the limit: slow but moving, one warning per wait. Nobody has:
// WaitTimeout, which names the chain and its end, the worker that really hangs. A worker that has not executed anything
// yet still loads, and has the start-up limit instead; one that saves a checkpoint has the limit of saves, for its next
// byte. A chain that ends at one that is idle and alive is nobody's fault, and nothing is said of it.
#pragma once

#include <functional>

#include "runtime/base/log.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep {

struct WatchdogOptions {
  int row = 0;                                  ///< whose waits are judged
  std::chrono::milliseconds limit{300'000};     ///< comm.watchdog_s
  std::chrono::milliseconds startup{600'000};   ///< comm.startup_s
  std::chrono::milliseconds save{3'600'000};    ///< comm.save_s
  std::function<std::string(int row)> who;      ///< "worker 1 (stage 1: h.2 .. head, rank 1)"
  std::function<std::string(int layer)> layer;  ///< its name
  Log log;
};

class Watchdog : public WaitGuard {
 public:
  /// The board outlives it. One worker's thread.
  Watchdog(PulseBoard& board, WatchdogOptions options);

  void begin_wait() override { fresh_ = true; }
  /// A message of that row has arrived.
  void heard_from(int row) { board_.heard_from(row); }
  std::chrono::milliseconds overdue(std::chrono::milliseconds waited, const std::string& transfer) override;

  /// How often a wait asks: often enough to see who moves within the limit.
  static std::chrono::milliseconds scan_every(std::chrono::milliseconds limit);

 private:
  struct Seen {
    std::uint64_t beats = 0;
    std::chrono::milliseconds changed{0};  // how long the wait had lasted
  };

  void look(std::chrono::milliseconds waited);
  std::vector<int> chain() const;
  std::chrono::milliseconds allowed(const PulseBoard::Reading& root) const;
  [[noreturn]] void give_up(const std::vector<int>& rows, std::chrono::milliseconds waited,
                            std::chrono::milliseconds quiet) const;
  std::string story(const std::vector<int>& rows) const;

  PulseBoard& board_;
  WatchdogOptions options_;
  std::vector<Seen> seen_;  // by row
  bool fresh_ = true, warned_ = false;
  std::chrono::milliseconds idled_{0};  // how long the wait had lasted when who is waited for last said to be idle
};

}  // namespace lockstep
