// SPDX-License-Identifier: Apache-2.0
//
// Who decides what happens next: called on the thread of row 0 (the worker of stage 0), which reads the data too.
#pragma once

#include <vector>

#include "runtime/layer/layer.hpp"
#include "runtime/observe/waiting.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

class Director {
 public:
  virtual ~Director() = default;
  /// `finished`: results that have become known since the last call, in order. The returned header's sequence and
  /// finished fields are filled in by the worker. Must end with Mode::flush, then Mode::stop. `limits`: of waits.
  virtual StepHeader next(const std::vector<StepResult>& finished, const WaitLimits& limits) = 0;
  /// Told, before next(), what rows have written of checkpoints (StateKeeper::take_reports()).
  virtual void saved(std::vector<std::string>) {}
  /// The data's entries (ModelGraph::sources order) for one micro-batch of the header that next() gave last.
  virtual Tensors micro_batch(int micro_batch) = 0;
};

/// Told of every finished result, once per process, in order, on some worker's thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_result(const StepResult& result) = 0;
  virtual void on_stop(StopReason) {}
};

}  // namespace lockstep
