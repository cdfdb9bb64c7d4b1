// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/mpi_links.hpp"

#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace lockstep {

std::unique_ptr<Channel> MpiLinks::sender(RankId to, int edge, bool of_layers) {
  return endpoint_.sender(to.value(), edge, of_layers && device_buffers_);
}

std::unique_ptr<Channel> MpiLinks::receiver(RankId from, int edge, bool of_layers, MemoryPool& pool) {
  // Whoever polls makes the tensors: fresh pages for every large message would cost more than its transfer. On a device
  // they are of its default stream, on which nobody computes: what has been let go of there is free at once.
  const c10::Device device = of_layers && device_buffers_ ? pool.device() : c10::Device(c10::kCPU);
  const bool pinned = device.is_cpu() && !pool.device().is_cpu();
  return endpoint_.receiver(from.value(), edge, [&pool, device, pinned](at::IntArrayRef sizes, at::ScalarType dtype) {
    const MemoryPool::Scope scope(pool, MemoryKind::slots);
    c10::OptionalStreamGuard guard;  // whoever polls may be at work on a stream of its own
    if (!device.is_cpu()) guard.reset_stream(c10::impl::VirtualGuardImpl(device.type()).getDefaultStream(device));
    return at::empty(sizes, at::TensorOptions(dtype).device(device).pinned_memory(pinned));
  });
}

std::unique_ptr<Heartbeats> MpiLinks::heartbeats(PulseBoard& board, const std::vector<RankId>& neighbours,
                                                 std::chrono::milliseconds interval) {
  std::vector<int> ranks;
  for (const RankId rank : neighbours) ranks.push_back(rank.value());
  return endpoint_.heartbeats(board, ranks, interval);
}

}  // namespace lockstep
