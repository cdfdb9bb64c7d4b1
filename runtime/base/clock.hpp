// SPDX-License-Identifier: Apache-2.0
//
// Monotonic time in microseconds since an arbitrary start. Only differences mean anything, and only inside one process.
#pragma once

#include <chrono>

namespace lockstep {

inline double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace lockstep
