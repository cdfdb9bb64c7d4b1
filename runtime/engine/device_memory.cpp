// SPDX-License-Identifier: Apache-2.0
//
// Blocks of devices come from LibTorch's allocators, which report what they give out and take back to whoever listens
// on the thread that asks: the place where its profiler listens, too.
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <unordered_map>

#include "runtime/engine/memory_state.hpp"

namespace lockstep::memory {
namespace {

struct Charges {
  std::mutex mutex;
  std::unordered_map<const void*, MemoryCharge> by_data;  // whose addresses stay
};

Charges& charges() {
  static auto* all = new Charges;  // blocks may be freed by whoever is last in the process
  return *all;
}

void forget(std::unordered_map<const void*, MemoryCharge>::iterator charge) {
  const auto bytes = static_cast<std::int64_t>(charge->second.bytes);
  MemoryPool::State* pool = charge->second.charged;
  let_go(pool, [&] { pool->subtract(bytes, charge->second.kind); });
  charges().by_data.erase(charge);
}

class Listener : public c10::MemoryReportingInfoBase {
 public:
  bool memoryProfilingEnabled() const override { return true; }

  void reportMemoryUsage(void* data, std::int64_t bytes, std::size_t, std::size_t, c10::Device device) override {
    if (device.is_cpu() || bytes == 0) return;
    const std::lock_guard lock(charges().mutex);
    // One that was freed where nobody listened is found out when it is given out again.
    if (const auto known = charges().by_data.find(data); known != charges().by_data.end()) {
      if (bytes < 0) net_bytes += bytes;
      forget(known);
    }
    if (bytes < 0 || !current_pool) return;
    {
      const std::lock_guard books(current_pool->mutex);
      MemoryPool::State& pool = *current_pool;
      // The allocator must not be left by an exception: check_limit() throws later.
      if (pool.limit > 0 && pool.bytes + bytes > pool.limit && pool.beyond.empty())
        pool.beyond = pool.over_limit(bytes);
      pool.add(bytes, current_kind);
      ++pool.blocks;
    }
    charges().by_data.try_emplace(data, current_pool, static_cast<std::size_t>(bytes), current_kind);
    net_bytes += bytes;
  }
};

}  // namespace

std::shared_ptr<void> count_devices() {
  return std::make_shared<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE, std::make_shared<Listener>());
}

MemoryCharge* charge_of_device(const void* data) {
  const std::lock_guard lock(charges().mutex);
  const auto found = charges().by_data.find(data);
  return found == charges().by_data.end() ? nullptr : &found->second;
}

}  // namespace lockstep::memory
