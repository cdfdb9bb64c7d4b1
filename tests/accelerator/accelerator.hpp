// SPDX-License-Identifier: Apache-2.0
//
// A simulated accelerator: LibTorch's device type PrivateUse1, with devices, streams, events, an allocator and pinned
// memory, whose kernels are the CPU's on aliases of the same memory. It computes at once, and watches whether a real
// device, which computes later, would have done the same:
//   - vector clocks per stream, host thread and block find an access that no event orders behind the one before it, and
//     a block that is freed while another stream may still use it;
//   - a copy to the host that does not wait leaves poison until somebody has waited for it;
//   - waits of the host are counted.
// The order that counts is that of the program, not of time, so a missing event is found in every run.
//
// Copies of a kernel's results cost time, and attention takes its mathematical path: numbers compare with this device's
// own. One per process, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::test {

struct AcceleratorCounts {
  std::int64_t waits = 0;          ///< of a host thread: for a stream, an event or a device, item(), a blocking copy
  std::int64_t to_host_bytes = 0;  ///< copied from devices to the host
  std::int64_t kernels = 0;
  std::int64_t streams = 0;  ///< that computed something
};

class Accelerator {
 public:
  /// Registers the backend, once per process, under the name "sim": devices "sim:0", "sim:1", ... Any thread.
  static void use();

  /// Forgets findings and counts. No block of a device may be alive that somebody still uses.
  static void reset();
  /// What would go wrong, the first hundred: "data race: ...", "freed early: ...".
  static std::vector<std::string> findings();
  static AcceleratorCounts counts();
  /// An event that has been recorded says "not yet" to so many looks (default 0).
  static void set_lag(int looks);
  static std::int64_t live_bytes(int device);
  /// More than this on one device is out of memory; 0: no limit.
  static void set_device_bytes(std::int64_t bytes);
};

inline constexpr int kSimulatedDevices = 4;

}  // namespace lockstep::test
