// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include "tests/accelerator/accelerator.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

/// The accelerator for one test, which must leave without findings.
struct Simulated {
  Simulated() {
    Accelerator::use();
    Accelerator::reset();
    Accelerator::set_lag(0);
  }
  ~Simulated() {
    for (const std::string& finding : Accelerator::findings()) FAIL_CHECK(finding);
  }
  Simulated(const Simulated&) = delete;
  Simulated& operator=(const Simulated&) = delete;
};

inline c10::Device sim(int device = 0) {
  return {c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(device)};
}

}  // namespace lockstep::test
