// SPDX-License-Identifier: Apache-2.0
#include "tests/accelerator/accelerator.hpp"

#include "tests/accelerator/simulated_order.hpp"

namespace lockstep::test {

using namespace simulated;

void Accelerator::use() {
  static const bool registered = [] {
    register_devices();
    register_kernels();
    register_recurrent_kernels();
    return true;
  }();
  static_cast<void>(registered);
}

void Accelerator::reset() {
  const std::lock_guard lock(world().mutex);
  world().findings.clear();
  world().counts = {};
  world().used.clear();
}

std::vector<std::string> Accelerator::findings() {
  const std::lock_guard lock(world().mutex);
  return world().findings;
}

AcceleratorCounts Accelerator::counts() {
  const std::lock_guard lock(world().mutex);
  AcceleratorCounts counts = world().counts;
  counts.streams = static_cast<std::int64_t>(world().used.size());
  return counts;
}

void Accelerator::set_lag(int looks) {
  const std::lock_guard lock(world().mutex);
  world().lag = looks;
}

std::int64_t Accelerator::live_bytes(int device) {
  const std::lock_guard lock(world().mutex);
  return world().live[device];
}

void Accelerator::set_device_bytes(std::int64_t bytes) {
  const std::lock_guard lock(world().mutex);
  world().device_bytes = bytes;
}

}  // namespace lockstep::test
