// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include "runtime/training/trainer.hpp"
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

/// Worker w is on devices[w mod size].
inline Trainer trainer_on(const std::vector<c10::Device>& devices, const Model& model, const DataSplits& data,
                          const Config& config, const Ranks& ranks = {}) {
  Assembly assembly = assemble(model, data, config, ranks);
  std::vector<c10::Device> by_row;
  for (std::size_t worker = 0; worker < assembly.devices.size(); ++worker)
    by_row.push_back(devices[worker % devices.size()]);
  return Trainer(with_devices(std::move(assembly), by_row));
}

}  // namespace lockstep::test
