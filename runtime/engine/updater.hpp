// SPDX-License-Identifier: Apache-2.0
//
// What the engine asks of an optimizer: one worker's parameters, one step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/layer/context.hpp"

namespace lockstep {

/// One tensor that an optimizer keeps for one parameter.
struct UpdaterState {
  const Parameter* parameter = nullptr;
  std::string name;  ///< "exp_avg"
  at::Tensor tensor;
};

class ParameterUpdater {
 public:
  virtual ~ParameterUpdater() = default;
  /// Updates value in place from gradient (defined, already scaled). `step` counts from 1. The engine lets the
  /// gradients go afterwards. The list is the same at every call.
  virtual void update(const std::vector<Parameter*>& parameters, double learning_rate, std::int64_t step) = 0;
  /// All that it remembers from step to step, made now if there was no step yet. The tensors are the live ones: a
  /// checkpoint copies them, a resumed job fills them in. The same list as for update().
  virtual std::vector<UpdaterState> state(const std::vector<Parameter*>& parameters) = 0;
};

}  // namespace lockstep
