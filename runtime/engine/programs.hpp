// SPDX-License-Identifier: Apache-2.0
//
// The programs of a job, made when first asked for: one per (mode, number of micro-batches). Lowering is pure, so every
// process makes the same ones. Thread-safe; a returned program lives as long as this object.
#pragma once

#include <functional>
#include <map>
#include <mutex>

#include "runtime/schedule/lower.hpp"

namespace lockstep {

class Programs {
 public:
  /// `schedule`: micro-batches -> schedule. Each new program is validated; ScheduleError with all findings.
  Programs(std::function<Schedule(int)> schedule, Topology topology, bool clip)
      : schedule_(std::move(schedule)), topology_(std::move(topology)), clip_(clip) {}
  virtual ~Programs() = default;

  const Program& get(Mode mode, int micro_batches);

 protected:
  /// Overridden by tests of the verifier, to plant faults.
  virtual Program make(Mode mode, int micro_batches) const;

 private:
  std::function<Schedule(int)> schedule_;
  Topology topology_;
  bool clip_;
  std::mutex mutex_;
  std::map<std::pair<Mode, int>, Program> programs_;
};

}  // namespace lockstep
