// SPDX-License-Identifier: Apache-2.0
//
// What the engine asks of checkpoints: one worker's state, saved and restored. Called on the worker's thread, whose
// waits for files keep the limits that they are given: what is written, read or synced is progress.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/element_range.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep {

/// One tensor that a worker holds between two steps. It is the live one.
struct HeldTensor {
  std::string name;
  at::Tensor tensor;
  bool is_first_holder = true;            ///< false: a tied copy, which another worker saves
  bool may_be_infinite = false;           ///< a buffer, such as a mask, or frozen; else what is not finite is broken
  std::optional<ElementRange> part = {};  ///< `tensor` is no more than these of what has the name, flat
  std::string starts_as = {};  ///< the weight that it starts as where a checkpoint lacks it; empty: it may not
  bool is_base = false;        ///< of a model that is adapted: where it came from has it, so it is not saved
  bool restarts = false;       ///< of the optimizer's rule: not restored by a job whose optimizer starts anew
};

struct WorkerState {
  std::vector<HeldTensor> weights;    ///< parameters (and buffers), by full name
  std::vector<HeldTensor> optimizer;  ///< "<parameter>.<state>": "fc.0.weight.exp_avg"
};

class StateKeeper {
 public:
  virtual ~StateKeeper() = default;
  /// Whether the job starts from weights that are kept somewhere: then restore() is called once, before the first
  /// program.
  virtual bool restores() const = 0;
  /// Fills in every tensor that does not start with values of its own.
  virtual void restore(const WorkerState& state, const WaitLimits& limits) = 0;
  /// The state after optimizer step `step`. When it returns, the tensors may change; the writing may still go on.
  /// Throws what went wrong with this save or the one before.
  virtual void save(std::int64_t step, const WorkerState& state, const WaitLimits& limits) = 0;
  /// Waits until everything is written.
  virtual void drain(const WaitLimits& limits) = 0;
  /// What has been written since the last call, for Decider::saved().
  virtual std::vector<std::string> take_reports() = 0;
};

}  // namespace lockstep
