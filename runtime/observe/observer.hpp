// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// Told of every finished result, once per process, in order, on some worker's thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_result(const StepResult& result) = 0;
  virtual void on_stop(StopReason) {}
};

}  // namespace lockstep
