// SPDX-License-Identifier: Apache-2.0
//
// What the engine asks of an optimizer: one step over the parameters that it was made for.
#pragma once

#include <cstdint>
#include <functional>
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
  bool starts_as_value = false;  ///< in a job that goes on from a checkpoint without it: as the parameter's value
};

class ParameterUpdater {
 public:
  virtual ~ParameterUpdater() = default;
  /// Updates values in place from gradients (defined, already scaled). `step` counts from 1. The engine lets the
  /// gradients go afterwards.
  virtual void update(double learning_rate, std::int64_t step) = 0;
  /// All that it remembers from step to step, made now if there was no step yet. The tensors are the live ones: a
  /// checkpoint copies them, a resumed job fills them in.
  virtual std::vector<UpdaterState> state() = 0;
};

/// An updater of these parameters, which outlive it.
using MakeUpdater = std::function<std::unique_ptr<ParameterUpdater>(const std::vector<Parameter*>& parameters)>;

}  // namespace lockstep
