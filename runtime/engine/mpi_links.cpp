// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/mpi_links.hpp"

#include <ATen/ops/empty.h>

namespace lockstep {

std::unique_ptr<Channel> MpiLinks::sender(RankId to, int edge) {
  return endpoint_.sender(to.value(), edge);
}

std::unique_ptr<Channel> MpiLinks::receiver(RankId from, int edge, MemoryPool& pool) {
  // Whoever polls makes the tensors: fresh pages for every large message would cost more than its transfer.
  return endpoint_.receiver(from.value(), edge, [&pool](at::IntArrayRef sizes, at::ScalarType dtype) {
    if (!pool.device().is_cpu()) return at::empty(sizes, at::TensorOptions(dtype).pinned_memory(true));
    const MemoryPool::Scope scope(pool, MemoryKind::slots);
    return at::empty(sizes, dtype);
  });
}

std::unique_ptr<Heartbeats> MpiLinks::heartbeats(PulseBoard& board, const std::vector<RankId>& neighbours,
                                                 std::chrono::milliseconds interval) {
  std::vector<int> ranks;
  for (const RankId rank : neighbours) ranks.push_back(rank.value());
  return endpoint_.heartbeats(board, ranks, interval);
}

}  // namespace lockstep
