// SPDX-License-Identifier: Apache-2.0
//
// The MPI end of this rank: makes the halves of channels to other ranks and moves all their messages.
//
// Protocol, per edge (an ordered pair of ranks and a number), on two tags:
//
//   receiver                                    sender
//   post():  Irecv of one slot (header tag)
//                                  <----------  send(): Isend of the slot: header, dtypes and shapes, and the tensors
//                                               themselves if they fit behind them (one message, copied)
//   the header has arrived: allocate the
//   tensors, Irecv into them (bulk tag)
//                                  <----------  otherwise Isends of every tensor from where it lies, in blocks
//   receive(): everything has arrived           finish(): MPI has let go of everything
//
// Whoever polls does the left side's second step, not receive(): every thread that waits polls for all channels of the
// rank, workers look() between layers, and while none waits, a helper thread polls (it naps 50 to 500 us between polls,
// and sleeps when nothing is in flight or workers wait anyway; without a core of its own it leaves polling to the
// workers until none has looked for 2 ms). So a message moves while its receiver computes, and shapes may change from
// one message to the next.
//
// Completion: a message that does not fit into the slot completes when the receiver has posted, if MPI sends its
// payload by rendezvous (MPICH: from some KiB on); a small one may complete earlier (MPI buffers it), which only lets a
// sender run ahead of what validate() has proved. With synchronous_sends every message completes exactly as in the
// proof.
//
// Memory: sent tensors are kept alive until MPI has read them and must not be written to. Received tensors are fresh,
// contiguous, and on the CPU or where `allocate` makes them; of a device's memory MPI must be one that takes it. A send
// starts when Message::loan is ready, and then gives the tensors back to the lender. Threads: everything may be called
// from any thread, each half from one at a time. One mutex (the world's) stands around all MPI calls.
//
// Errors: an error of one transfer (truncation, a foreign header, no memory) is thrown by the wait for it, and makes
// MpiWorld skip MPI_Finalize. A channel that is destroyed with a receive posted cancels it; what cannot be cancelled is
// leaked, and Finalize skipped too.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/channel.hpp"
#include "runtime/comm/mpi/mpi_world.hpp"

namespace lockstep {

namespace mpi {
class Progress;
}

/// The same on all ranks.
struct MpiEndpointOptions {
  std::int64_t block_bytes = std::int64_t{1} << 30;  ///< largest MPI message; counts of MPI are ints
  int slot_bytes = 4096;                             ///< a multiple of 64, at least 64: what travels as one message
  bool helper = true;                                ///< the thread that moves messages while all workers compute
  int workers = 1;                                   ///< threads of this rank that compute and wait: see below
  bool synchronous_sends = false;                    ///< a send never completes before its post: slower, for tests
};

/// Whether some workers of this host share a core: then waits spin short and sleep long.
/// `cpus`: what this process may run on; `host_cpus`: what the host has; `host_ranks`: ranks on this host.
bool workers_share_cores(int workers, int host_ranks, int cpus, int host_cpus);

/// Why this MPI cannot be given memory of such a device; empty: it says that it takes it.
std::string why_no_device_memory(const std::string& device_type);

class MpiEndpoint {
 public:
  /// Makes a received tensor. Called under the mutex by whichever thread polls: it must not wait for
  /// anything.
  using Allocate = std::function<at::Tensor(at::IntArrayRef sizes, at::ScalarType dtype)>;

  explicit MpiEndpoint(MpiWorld& world, MpiEndpointOptions options = {});
  /// After its channels, before the world.
  ~MpiEndpoint();

  /// The sending half of edge `edge` from this rank to `peer_rank` (which may be this rank); edges are numbered from 0
  /// within each ordered pair of ranks. One half per edge. Throws CommError when there are more edges than tags.
  /// `device_memory`: MPI reads that of devices.
  std::unique_ptr<Channel> sender(int peer_rank, int edge, bool device_memory = false);
  /// The receiving half of edge `edge` from `peer_rank` to this rank. Without `allocate`: at::empty.
  std::unique_ptr<Channel> receiver(int peer_rank, int edge, Allocate allocate = {});
  /// Moves what can be moved now, for all channels; takes 0.1 us when nothing can. Any thread; throws CommError.
  void look();
  /// Exchanges the board with the peers, every interval (heartbeats.hpp). If a is a peer of b, b is one of a.
  std::unique_ptr<Heartbeats> heartbeats(PulseBoard& board, const std::vector<int>& peers,
                                         std::chrono::milliseconds interval);

 private:
  MpiWorld& world_;
  MpiEndpointOptions options_;
  std::unique_ptr<mpi::Progress> progress_;
};

}  // namespace lockstep
