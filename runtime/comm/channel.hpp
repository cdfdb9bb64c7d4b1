// SPDX-License-Identifier: Apache-2.0
//
// A one-way channel between two workers, and the rules of waiting. One Channel object serves one edge of the Program;
// the sender uses send/finish, the receiver post/receive. In one process both ends are the same object (LocalChannel,
// tensors handed over by pointer); over MPI each rank has its own half (MpiChannel).
//
// Threads: at most one thread sends and at most one receives on a channel.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "runtime/base/error.hpp"
#include "runtime/comm/message.hpp"

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

/// A transport operation failed: operation, peer, tag, bytes, class of the error.
class CommError : public Error {
 public:
  using Error::Error;
};

/// Shared by all workers of a process: every wait ends when it is raised.
class StopFlag {
 public:
  void raise() { raised_.store(true, std::memory_order_release); }
  bool raised() const { return raised_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> raised_{false};
};

/// How long a wait may last, and what ends it early.
struct WaitLimits {
  const StopFlag* stop = nullptr;  ///< never null while waiting
  std::chrono::milliseconds timeout{300'000};
};

class Channel {
 public:
  virtual ~Channel() = default;

  /// Receiver: the next message may arrive. Never blocks. At most one post is outstanding.
  virtual void post() = 0;
  /// Receiver: waits for the message that was posted for. Throws JobStopped, WaitTimeout, CommError.
  virtual Message receive(const WaitLimits& limits) = 0;
  /// Sender: waits until the previous send has completed, then starts this one and returns. The tensors must not be
  /// written to afterwards by anybody; the channel keeps them alive.
  virtual void send(Message message, const WaitLimits& limits) = 0;
  /// Sender: waits until the last send has completed, that is, until the receiver has posted for it.
  virtual void finish(const WaitLimits& limits) = 0;
};

}  // namespace lockstep
