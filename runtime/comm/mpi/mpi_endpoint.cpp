// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/mpi_endpoint.hpp"

#include <ATen/ops/empty.h>
#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include "runtime/base/check.hpp"
#include "runtime/comm/backoff.hpp"
#include "runtime/comm/mpi/heartbeats.hpp"
#include "runtime/comm/mpi/mpi_channel.hpp"

namespace lockstep {
namespace {

/// Of a helper that has no core of its own: each time it wakes it takes some 40 us from a worker. Messages that go on
/// only when both sides look, while both compute, wait for as long.
constexpr std::chrono::microseconds kHelperPatience{2'000};

mpi::EdgeTags tags_of(int edge, int tag_limit) {
  return {mpi::pack_tag(mpi::TagKind::header, edge, tag_limit), mpi::pack_tag(mpi::TagKind::bulk, edge, tag_limit)};
}

at::Tensor empty_on_cpu(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::empty(sizes, at::device(at::kCPU).dtype(dtype));
}

int cpus_of_this_process() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

}  // namespace

bool workers_share_cores(int workers, int host_ranks, int cpus, int host_cpus) {
  // A launcher that binds gives each rank its own part of the host; without binding all ranks share all of it.
  const bool bound = cpus < host_cpus;
  return bound ? workers > cpus : workers * host_ranks > cpus;
}

MpiEndpoint::MpiEndpoint(MpiWorld& world, MpiEndpointOptions options) : world_(world), options_(options) {
  LOCKSTEP_CHECK(options.slot_bytes >= 64 && options.slot_bytes % 64 == 0, "slots of ", options.slot_bytes, " bytes");
  LOCKSTEP_CHECK(options.block_bytes >= 1 && options.block_bytes <= std::int64_t{1} << 30, "blocks of ",
                 options.block_bytes);
  const auto share = [&](int threads) {
    return workers_share_cores(threads, world.host_ranks(), cpus_of_this_process(),
                               static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  };
  std::optional<std::chrono::microseconds> helper;
  if (options.helper) helper = share(options.workers + 1) ? kHelperPatience : std::chrono::microseconds(0);
  progress_ = std::make_unique<mpi::Progress>(world, helper, share(options.workers) ? Cores::shared : Cores::own);
}

void MpiEndpoint::look() {
  progress_->look();
}

MpiEndpoint::~MpiEndpoint() = default;

std::string why_no_device_memory(const std::string& device_type) {
  // Not in the MPI standard: Open MPI and MPICH have it, as a function of theirs.
  const auto query = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support"));
  if (device_type != "cuda") return concat("it is not known whether it takes memory of ", device_type, " devices");
  if (!query) return "it is not known whether it takes memory of devices (no MPIX_Query_cuda_support)";
  return query() == 1 ? "" : "it is known that it takes no memory of CUDA devices (MPIX_Query_cuda_support says so)";
}

std::unique_ptr<Channel> MpiEndpoint::sender(int peer_rank, int edge, bool device_memory) {
  LOCKSTEP_CHECK(peer_rank >= 0 && peer_rank < world_.size(), "rank ", peer_rank, " of ", world_.size());
  return std::make_unique<mpi::MpiSender>(
      *progress_,
      std::make_shared<mpi::SendTransfer>(peer_rank, edge, tags_of(edge, world_.state().tag_limit), options_),
      device_memory);
}

std::unique_ptr<Channel> MpiEndpoint::receiver(int peer_rank, int edge, Allocate allocate) {
  LOCKSTEP_CHECK(peer_rank >= 0 && peer_rank < world_.size(), "rank ", peer_rank, " of ", world_.size());
  if (!allocate) allocate = empty_on_cpu;
  return std::make_unique<mpi::MpiReceiver>(
      *progress_, std::make_shared<mpi::ReceiveTransfer>(peer_rank, edge, tags_of(edge, world_.state().tag_limit),
                                                         options_, std::move(allocate), progress_->requests()));
}

std::unique_ptr<Heartbeats> MpiEndpoint::heartbeats(PulseBoard& board, const std::vector<int>& peers,
                                                    std::chrono::milliseconds interval) {
  return std::make_unique<mpi::MpiHeartbeats>(world_, board, peers, interval);
}

}  // namespace lockstep
