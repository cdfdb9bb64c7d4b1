// SPDX-License-Identifier: Apache-2.0
//
// The links of a job to its other ranks, whatever carries them: the engine knows no MPI.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/ids.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/engine/memory.hpp"
#include "runtime/observe/pulse.hpp"

namespace lockstep {

class RemoteLinks {
 public:
  virtual ~RemoteLinks() = default;
  /// The half of a channel whose other end is on another rank. `edge`: index within the ordered pair of ranks.
  /// `of_layers`: values and gradients travel there, which may lie on devices; else what the host reads.
  virtual std::unique_ptr<Channel> sender(RankId to, int edge, bool of_layers) = 0;
  /// Received tensors come from `pool`, which outlives the channel.
  virtual std::unique_ptr<Channel> receiver(RankId from, int edge, bool of_layers, MemoryPool& pool) = 0;
  /// Keeps `board` fresh while it lives. `neighbours`: the ranks that this one shares an edge with. Both outlive it.
  virtual std::unique_ptr<Heartbeats> heartbeats(PulseBoard& board, const std::vector<RankId>& neighbours,
                                                 std::chrono::milliseconds interval) = 0;
  /// Moves messages that can be moved now: workers call it between layers.
  virtual void look() = 0;
  virtual std::string host() const = 0;
};

}  // namespace lockstep
