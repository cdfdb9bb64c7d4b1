// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include "runtime/training/run_record.hpp"
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

/// Worker w is on devices[w mod size]; servers are on the host.
inline Trainer trainer_on(const std::vector<c10::Device>& devices, const Model& model, const DataSplits& data,
                          const Config& config, const Ranks& ranks = {}) {
  Assembly assembly = assemble(model, data, config, ranks);
  std::vector<c10::Device> by_row = assembly.devices;
  const auto workers = by_row.size() - static_cast<std::size_t>(assembly.partition.topology.servers);
  for (std::size_t worker = 0; worker < workers; ++worker) by_row[worker] = devices[worker % devices.size()];
  return Trainer(with_devices(std::move(assembly), by_row));
}

inline RunRecord run_on(const std::vector<at::Device>& devices, const Model& model, const DataSplits& data,
                        const Config& config, const RunOptions& options = {}, const std::string& resume_from = "") {
  Trainer trainer = trainer_on(devices, model, data, config);
  if (!resume_from.empty()) trainer.resume(resume_from);
  return record_run(trainer, options);
}

/// From the run of one worker; empty: there is none.
inline std::string difference_on(const std::vector<at::Device>& devices, const RunRecord& reference, const Model& model,
                                 const DataSplits& data, const Config& config) {
  const RunRecord tested = run_on(devices, model, data, config);
  return first_difference(reference, tested, Trainer(model, data, one_worker(config)).graph()).value_or("");
}

}  // namespace lockstep::test
