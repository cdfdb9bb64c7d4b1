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
  MpiLinks(MpiWorld& world, const MpiEndpointOptions& options) : endpoint_(world, options) {}
  std::unique_ptr<Channel> sender(RankId to, int edge) override;
  std::unique_ptr<Channel> receiver(RankId from, int edge, MemoryPool& pool) override;

 private:
  MpiEndpoint endpoint_;
};

}  // namespace lockstep
