// SPDX-License-Identifier: Apache-2.0
//
// The programs of a job, made when first asked for: one per (mode, number of micro-batches). Lowering is pure, so every
// process makes the same ones. Thread-safe; a returned program lives as long as this object.
#pragma once

#include <map>
#include <mutex>

#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/validate.hpp"

namespace lockstep {

class Programs {
 public:
  /// `schedule`: of a full batch; a program of fewer micro-batches runs the first ones of it, over the same edges. Each
  /// new program is validated; ScheduleError with all findings. Order::any accepts a schedule that sums gradients in
  /// another order than 0..M-1: other bits; whoever passes it warns (warning_of_order() in validate.hpp).
  /// `options`: for all of them; their mode and lanes are not used.
  Programs(Schedule schedule, Topology topology, LowerOptions options, Order order = Order::ascending);
  virtual ~Programs() = default;

  /// 0 <= micro_batches <= those of the schedule.
  const Program& get(Mode mode, int micro_batches);

 protected:
  /// Overridden by tests of the verifier, to plant faults.
  virtual Program make(Mode mode, int micro_batches) const;

 private:
  const Schedule schedule_;
  const Topology topology_;
  LowerOptions options_;  ///< with the lanes of the full batch, for all
  const Order order_;
  std::mutex mutex_;
  std::map<std::pair<Mode, int>, Program> programs_;
};

}  // namespace lockstep
