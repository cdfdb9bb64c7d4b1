// SPDX-License-Identifier: Apache-2.0
#include "tests/accelerator/simulated_order.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/base/error.hpp"

namespace lockstep::test::simulated {

void join(Clock& clock, const Clock& other) {
  for (const auto& [stream, tick] : other) clock[stream] = std::max(clock[stream], tick);
}
bool knows(const Clock& clock, int stream, std::uint64_t tick) {
  const auto found = clock.find(stream);
  return found != clock.end() && found->second >= tick;
}

World& world() {
  static World* all = new World;  // blocks may be freed by whoever is last in the process
  return *all;
}

thread_local Clock host;
thread_local int current_device = 0;
thread_local int current_stream[kSimulatedDevices] = {};

int index_of(const c10::Stream& stream) {
  return stream.device_index() * kStreamsPerDevice + static_cast<int>(stream.id());
}
int index_of(int device) {
  return device * kStreamsPerDevice + current_stream[device];
}
std::string name_of(int stream) {
  return concat("stream ", stream % kStreamsPerDevice, " of sim:", stream / kStreamsPerDevice);
}

void found(const std::string& what) {
  if (world().findings.size() < 100) world().findings.push_back(what);
}

Block* block_of(const void* data) {
  auto next = world().blocks.upper_bound(static_cast<char*>(const_cast<void*>(data)));
  if (next == world().blocks.begin()) return nullptr;
  --next;
  return static_cast<const char*>(data) < next->first + std::max<std::size_t>(next->second.bytes, 1) ? &next->second
                                                                                                     : nullptr;
}

namespace {

void check(const Clock& clock, int stream, const Block& block, const Access& access, const std::string& what) {
  if (block.written_by >= 0 && block.written_by != stream && !knows(clock, block.written_by, block.written.tick))
    found(concat("data race: ", what, " on ", name_of(stream), access.writes ? " writes" : " reads", " what ",
                 block.written.what, " on ", name_of(block.written_by), " has written, without an event between"));
  if (!access.writes) return;
  for (const auto& [reader, use] : block.read_by)
    if (reader != stream && !knows(clock, reader, use.tick))
      found(concat("data race: ", what, " on ", name_of(stream), " writes what ", use.what, " on ", name_of(reader),
                   " reads, without an event between"));
}

}  // namespace

std::uint64_t work(int stream, const std::vector<Access>& accesses, const std::string& what) {
  World& here = world();
  Clock& clock = here.streams[stream];
  join(clock, host);
  const std::uint64_t tick = ++clock[stream];
  here.used.insert(stream);
  ++here.counts.kernels;
  for (const Access& access : accesses)
    if (const Block* block = block_of(access.data)) check(clock, stream, *block, access, what);
  for (const Access& access : accesses) {
    Block* block = block_of(access.data);
    if (!block) continue;
    if (access.writes) {
      block->written_by = stream;
      block->written = {tick, what};
      block->read_by.clear();
    } else {
      block->read_by[stream] = {tick, what};
    }
  }
  return tick;
}

void arrived(const Clock& clock) {
  join(host, clock);
  for (auto& [stream, copies] : world().pending) {
    const auto done = clock.find(stream);
    if (done == clock.end()) continue;
    std::erase_if(copies, [&](const PendingCopy& copy) {
      if (copy.tick > done->second) return false;
      std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
      return true;
    });
  }
}

void wait_for(int stream) {
  ++world().counts.waits;
  arrived(world().streams[stream]);
}

}  // namespace lockstep::test::simulated
