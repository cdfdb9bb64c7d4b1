// SPDX-License-Identifier: Apache-2.0
//
// The links of a job to its other ranks, over MPI. Built with LOCKSTEP_MPI only.
#pragma once

#include "runtime/comm/mpi/mpi_endpoint.hpp"
#include "runtime/engine/job.hpp"

namespace lockstep {

class MpiLinks : public RemoteLinks {
 public:
  /// `world` outlives the links; the links outlive the job. `device_buffers`: MPI reads and writes memory of devices.
  MpiLinks(MpiWorld& world, const MpiEndpointOptions& options, bool device_buffers = false)
      : world_(world), endpoint_(world, options), device_buffers_(device_buffers) {}
  std::unique_ptr<Channel> sender(RankId to, int edge, bool of_layers) override;
  std::unique_ptr<Channel> receiver(RankId from, int edge, bool of_layers, MemoryPool& pool) override;
  std::unique_ptr<Heartbeats> heartbeats(PulseBoard& board, const std::vector<RankId>& neighbours,
                                         std::chrono::milliseconds interval) override;
  void look() override { endpoint_.look(); }
  std::string host() const override { return world_.host(); }

 private:
  MpiWorld& world_;
  MpiEndpoint endpoint_;
  bool device_buffers_;
};

}  // namespace lockstep
