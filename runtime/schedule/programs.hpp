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
  /// `schedule`: of a full batch, and of one replica of the topology's; a program of fewer micro-batches runs the first
  /// ones of it, over the same edges. `memory_of_row`: see Wiring. Each
  /// new program is validated; ScheduleError with all findings. Order::any accepts a schedule that sums gradients in
  /// another order than 0..M-1: other bits; whoever passes it warns (warning_of_order() in validate.hpp).
  /// `options`: for all of them; their mode is not used.
  Programs(Schedule schedule, Topology topology, LowerOptions options, Order order = Order::ascending,
           std::vector<int> memory_of_row = {});
  virtual ~Programs() = default;

  /// 0 <= micro_batches <= those of a full batch, over all replicas.
  const Program& get(Mode mode, int micro_batches);
  const Wiring& wiring() const { return wiring_; }

 protected:
  /// Overridden by tests of the verifier, to plant faults.
  virtual Program make(Mode mode, int micro_batches) const;

 private:
  const Schedule schedule_;
  const Topology topology_;
  const Wiring wiring_;  ///< of the full batch, for all
  const LowerOptions options_;
  const Order order_;
  std::mutex mutex_;
  std::map<std::pair<Mode, int>, Program> programs_;
};

}  // namespace lockstep
