// SPDX-License-Identifier: Apache-2.0
//
// What the control groups of this process and the machine leave it. (Which CPUs: binding.hpp.) No torch here.
#pragma once

#include <cstdint>
#include <optional>

namespace lockstep {

/// Cores' worth of CPU time, the least of all groups from our own up to the root; nullopt: no limit.
std::optional<double> cpu_quota();

struct MachineMemory {
  std::int64_t total_bytes = 0;
  std::int64_t available_bytes =
      0;  ///< as the kernel estimates, and as the groups and RLIMIT_DATA (ulimit -d) leave it
  std::optional<std::int64_t> group_bytes;  ///< the least limit of all groups; nullopt: none
};
MachineMemory machine_memory();

}  // namespace lockstep
