// SPDX-License-Identifier: Apache-2.0
//
// A one-way channel between two workers; observe/waiting.hpp has the rules of waiting. One Channel object serves one
// edge of the Program; the sender uses send/finish, the receiver post/receive. In one process both ends are the same
// object (LocalChannel, tensors handed over by pointer); over MPI each rank has its own half (MpiChannel).
//
// Threads: at most one thread sends and at most one receives on a channel.
#pragma once

#include <string>

#include "runtime/comm/message.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep {

/// A transport operation failed: operation, peer, tag, bytes, class of the error.
class CommError : public Error {
 public:
  using Error::Error;
};

class Channel {
 public:
  virtual ~Channel() = default;

  /// Receiver: the next message may arrive. Never blocks. At most one post is outstanding.
  virtual void post() = 0;
  /// Receiver: waits for the message that was posted for. Throws JobStopped, WaitTimeout, CommError.
  virtual Message receive(const WaitLimits& limits) = 0;
  /// Receiver: whether the message that was posted for is there, so that receive() will not wait. Never blocks.
  virtual bool arrived() = 0;
  /// Sender: waits until the previous send has completed, then starts this one and returns. The tensors must not be
  /// written to afterwards by anybody; the channel keeps them alive.
  virtual void send(Message message, const WaitLimits& limits) = 0;
  /// Sender: waits until the last send has completed, that is, until the receiver has posted for it.
  virtual void finish(const WaitLimits& limits) = 0;
  /// Whether both ends are in one process, and tensors of a device stay where they are: lent, or copied by the
  /// receiver.
  virtual bool is_local() const = 0;
  /// Sender: whether messages have to be in memory of the host, be it with Loan::ready still to come.
  virtual bool wants_host_memory() const = 0;
};

}  // namespace lockstep
