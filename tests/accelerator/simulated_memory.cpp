// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>

#include "runtime/base/error.hpp"
#include "tests/accelerator/simulated_order.hpp"

namespace lockstep::test::simulated {
namespace {

void free_block(void* data) {
  if (!data) return;
  World& here = world();
  {
    const std::lock_guard lock(here.mutex);
    const auto at = here.blocks.find(static_cast<char*>(data));
    const Block& block = at->second;
    // Whoever gets it next may write to it at once: on the host, or in the order of the stream that it was made for.
    Clock known = host;
    if (block.stream >= 0) {
      join(known, here.streams[block.stream]);
      here.live[block.device] -= static_cast<std::int64_t>(block.bytes);
    }
    const auto look = [&](int stream, const Use& use) {
      if (stream < 0 || stream == block.stream || knows(known, stream, use.tick)) return;
      found(concat("freed early: a block of ", name_of(block.stream), " that ", use.what, " on ", name_of(stream),
                   " may still be using"));
    };
    if (block.stream >= 0) {
      look(block.written_by, block.written);
      for (const auto& [stream, use] : block.read_by) look(stream, use);
    } else {  // LibTorch's allocator gives it to nobody before the copies that it knows of are over
      const auto* begin = static_cast<const char*>(data);
      for (auto& [stream, copies] : here.pending)
        std::erase_if(copies, [&](const PendingCopy& copy) {
          return copy.to >= begin && copy.to < begin + std::max<std::size_t>(block.bytes, 1);
        });
    }
    here.blocks.erase(at);
  }
  std::free(data);
}

void* make_block(std::size_t bytes, int device, int stream) {
  World& here = world();
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  TORCH_CHECK(data, "out of host memory");
  std::memset(data, 0xff, bytes);
  const std::lock_guard lock(here.mutex);
  here.blocks[static_cast<char*>(data)] = Block{bytes, device, stream, -1, {}, {}};
  if (device < 0) return data;
  here.live[device] += static_cast<std::int64_t>(bytes);
  here.peak[device] = std::max(here.peak[device], here.live[device]);
  return data;
}

class DeviceMemory : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device(kType, static_cast<c10::DeviceIndex>(current_device));
    if (bytes == 0) return {nullptr, nullptr, &free_device, device};
    {
      World& here = world();
      const std::lock_guard lock(here.mutex);
      const std::int64_t held = here.live[current_device];
      TORCH_CHECK_WITH(OutOfMemoryError,
                       here.device_bytes == 0 || held + static_cast<std::int64_t>(bytes) <= here.device_bytes,
                       "sim:", current_device, " is out of memory: tried to allocate ", bytes, " with ", held, " of ",
                       here.device_bytes, " in use");
    }
    void* data = make_block(bytes, current_device, index_of(current_device));
    report(data, static_cast<std::int64_t>(bytes), current_device);
    return {data, data, &free_device, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_device; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    {
      const std::lock_guard lock(world().mutex);
      work(index_of(current_device), {{from, false}, {to, true}}, "copy_data");
    }
    std::memcpy(to, from, bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {
    const std::lock_guard lock(world().mutex);
    found("record_stream: memory would depend on timing");
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(world().mutex);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = world().live[device];
    stats.allocated_bytes[0].peak = world().peak[device];
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(world().mutex);
    world().peak[device] = world().live[device];
  }

 private:
  static void free_device(void* data) {
    if (!data) return;
    std::int64_t bytes = 0;
    int device = 0;
    {
      const std::lock_guard lock(world().mutex);
      const Block& block = world().blocks.at(static_cast<char*>(data));
      bytes = static_cast<std::int64_t>(block.bytes);
      device = block.device;
    }
    free_block(data);
    report(data, -bytes, device);
  }
  static void report(void* data, std::int64_t bytes, int device) {
    c10::reportMemoryUsageToProfiler(data, bytes, 0, 0, c10::Device(kType, static_cast<c10::DeviceIndex>(device)));
  }
};

class PinnedMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_block, c10::Device(c10::kCPU)};
    void* data = make_block(bytes, -1, -1);
    return {data, data, &free_block, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

c10::DeviceAllocator& device_memory() {
  static auto* memory = new DeviceMemory;
  return *memory;
}
c10::Allocator& pinned_memory() {
  static auto* memory = new PinnedMemory;
  return *memory;
}

}  // namespace lockstep::test::simulated
