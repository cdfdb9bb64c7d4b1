// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/clocks.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

#include "runtime/base/check.hpp"

namespace lockstep {

ClockOffset clock_offset(const std::vector<ClockExchange>& ours, const std::vector<ClockExchange>& theirs,
                         bool same_kernel) {
  LOCKSTEP_CHECK(!ours.empty() && ours.size() == theirs.size(), "exchanges of clocks do not match");
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < ours.size(); ++i) {
    most = std::min(most, theirs[i].left_us - ours[i].entered_us);
    least = std::max(least, theirs[i].entered_us - ours[i].left_us);
  }
  if (same_kernel && least <= 0 && most >= 0) return {};
  return {(least + most) / 2, std::max(0.0, most - least) / 2};
}

std::string kernel_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace lockstep
