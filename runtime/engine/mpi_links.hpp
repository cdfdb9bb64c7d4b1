// SPDX-License-Identifier: Apache-2.0
//
// The links of a job to its other ranks, over MPI. Built with LOCKSTEP_MPI only.
#pragma once

#include "runtime/comm/mpi/mpi_endpoint.hpp"
#include "runtime/engine/job.hpp"

namespace lockstep {

class MpiLinks : public RemoteLinks {
 public:
  /// `world` outlives the links; the links outlive the job.
  MpiLinks(MpiWorld& world, const MpiEndpointOptions& options) : world_(world), endpoint_(world, options) {}
  std::unique_ptr<Channel> sender(RankId to, int edge) override;
  std::unique_ptr<Channel> receiver(RankId from, int edge, MemoryPool& pool) override;
  std::unique_ptr<Heartbeats> heartbeats(PulseBoard& board, const std::vector<RankId>& neighbours,
                                         std::chrono::milliseconds interval) override;
  void look() override { endpoint_.look(); }
  std::string host() const override { return world_.host(); }

 private:
  MpiWorld& world_;
  MpiEndpoint endpoint_;
};

}  // namespace lockstep
