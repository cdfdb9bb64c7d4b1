// SPDX-License-Identifier: Apache-2.0
//
// Internal to the simulated accelerator: what has been done before what, and who is told.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Storage.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/accelerator/accelerator.hpp"

namespace lockstep::test::simulated {

inline constexpr auto kType = c10::DeviceType::PrivateUse1;
inline constexpr int kStreamsPerDevice = 64;

/// By stream of all devices: how much of its work is known to be done before. Absent: nothing.
using Clock = std::map<int, std::uint64_t>;

struct Use {
  std::uint64_t tick = 0;
  std::string what;
};

/// A block of a device, or of pinned memory.
struct Block {
  std::size_t bytes = 0;
  int device = -1;  // -1: pinned
  int stream = -1;  // that it was made for; of pinned memory none
  int written_by = -1;
  Use written;
  std::map<int, Use> read_by;  // by stream
};

struct PendingCopy {
  std::uint64_t tick = 0;
  void* to = nullptr;
  std::vector<char> bytes;
};

struct EventState {
  Clock clock;
  int looks = 0;
  double us = 0;
};

struct World {
  std::mutex mutex;
  std::map<int, Clock> streams;
  std::map<char*, Block> blocks;
  std::map<int, std::vector<PendingCopy>> pending;  // by stream
  std::vector<std::string> findings;
  AcceleratorCounts counts;
  std::set<int> used;
  std::int64_t live[kSimulatedDevices] = {}, peak[kSimulatedDevices] = {};
  std::int64_t device_bytes = 0;
  int lag = 0;
  int next_stream[kSimulatedDevices] = {};
};

World& world();

extern thread_local Clock host;  // what this thread knows to be done
extern thread_local int current_device;
extern thread_local int current_stream[kSimulatedDevices];  // within the device; 0: its default one

bool knows(const Clock& clock, int stream, std::uint64_t tick);
void join(Clock& clock, const Clock& other);
int index_of(const c10::Stream& stream);
int index_of(int device);
std::string name_of(int stream);

// All of these under the mutex.

struct Access {
  const void* data = nullptr;
  bool writes = false;
};

void found(const std::string& what);
Block* block_of(const void* data);
/// A kernel or copy on a stream.
std::uint64_t work(int stream, const std::vector<Access>& accesses, const std::string& what);
/// The host has waited for all of this: what was copied to it has arrived.
void arrived(const Clock& clock);
void wait_for(int stream);

// Not under it.

c10::DeviceAllocator& device_memory();
c10::Allocator& pinned_memory();
void resize_bytes(const c10::Storage& storage, std::size_t bytes);
void register_devices();
void register_kernels();
void register_recurrent_kernels();

}  // namespace lockstep::test::simulated
