// SPDX-License-Identifier: Apache-2.0
//
// Internal to the memory pool: its books, for blocks of the host (memory.cpp) and of devices (device_memory.cpp).
#pragma once

#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/size.hpp"
#include "runtime/engine/memory.hpp"

namespace lockstep {

/// Who pays for one block. `charged` says under whose mutex the rest is.
struct MemoryCharge {
  std::atomic<MemoryPool::State*> charged;
  std::size_t bytes;  ///< as asked for
  MemoryKind kind;
};

// Lives until its MemoryPool and the last block that it made or is charged for are gone.
struct MemoryPool::State {
  std::mutex mutex;
  std::map<std::size_t, std::vector<void*>> kept;  // by size class: whole blocks, header included
  MemoryByKind by_kind{}, at_peak{};
  std::int64_t bytes = 0, peak = 0, kept_bytes = 0, limit = 0;
  c10::Device device = c10::kCPU;  // whose tensors are counted
  std::string beyond;              // what a device has made beyond the limit; empty: nothing
  std::int64_t blocks = 0;         // made here or charged here: a block that is both counts twice
  bool retired = false;

  // All under the mutex.
  void add(std::int64_t size, MemoryKind kind) {
    bytes += size;
    by_kind[static_cast<std::size_t>(kind)] += size;
    if (bytes <= peak) return;
    peak = bytes;
    at_peak = by_kind;
  }
  void subtract(std::int64_t size, MemoryKind kind) {
    bytes -= size;
    by_kind[static_cast<std::size_t>(kind)] -= size;
  }
  void drop_kept() {
    for (auto& [size, list] : kept)
      for (void* block : list) std::free(block);
    kept.clear();
    kept_bytes = 0;
  }
  // Kept blocks go first: they are a convenience.
  void make_room(std::int64_t size) {
    if (limit == 0 || bytes + kept_bytes + size <= limit) return;
    drop_kept();
    if (bytes + size > limit) throw MemoryLimitError(over_limit(size));
  }
  std::string held() const {
    std::string kinds;
    for (std::size_t kind = 0; kind < by_kind.size(); ++kind)
      kinds += concat(kind ? ", " : "", to_string(static_cast<MemoryKind>(kind)), " ", size_text(by_kind[kind]));
    return concat(size_text(bytes), " (", kinds, ")");
  }
  std::string over_limit(std::int64_t size) const {
    return concat(
        "over the memory limit of this worker: asked for ", size_text(size), " while holding ", held(),
        " of workers.memory_limit: ", size_text(limit),
        "; raise it, cut the model into more stages, use more micro-batches, or a schedule that keeps fewer of "
        "them alive");
  }
};

namespace memory {

/// What this thread makes is charged to; null: to nobody.
extern thread_local MemoryPool::State* current_pool;
extern thread_local MemoryKind current_kind;
extern thread_local std::int64_t net_bytes;

/// A block of the pool is gone: `under_lock` takes it off the books.
template <typename Function>
void let_go(MemoryPool::State* pool, const Function& under_lock) {
  bool last = false;
  {
    std::lock_guard lock(pool->mutex);
    under_lock();
    last = --pool->blocks == 0 && pool->retired;
  }
  if (last) delete pool;
}

/// While alive, blocks that this thread makes on devices are charged like those of the host.
std::shared_ptr<void> count_devices();
/// Of a block of a device that a pool pays for, while somebody holds it; else null.
MemoryCharge* charge_of_device(const void* data);

}  // namespace memory

}  // namespace lockstep
