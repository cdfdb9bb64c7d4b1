// SPDX-License-Identifier: Apache-2.0
//
// What the engine asks of an optimizer: one worker's parameters, one step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/layer/context.hpp"

namespace lockstep {

class ParameterUpdater {
 public:
  virtual ~ParameterUpdater() = default;
  /// Updates value in place from gradient (defined, already scaled). `step` counts from 1. The engine lets the
  /// gradients go afterwards. The list is the same at every call.
  virtual void update(const std::vector<Parameter*>& parameters, double learning_rate, std::int64_t step) = 0;
};

}  // namespace lockstep
