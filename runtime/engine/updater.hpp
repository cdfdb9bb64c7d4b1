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
  std::size_t position = 0;  ///< of the parameter, among those that the updater was made for
  std::string name;          ///< "exp_avg"
  at::Tensor tensor;
  bool starts_as_value = false;  ///< in a job that goes on from a checkpoint without it: as the parameter's value
};

/// Elements [begin, end) of a parameter: all of them, or blocks of kNormBlock elements where the rule looks at each
/// element by itself.
struct UpdatePart {
  std::size_t parameter = 0;  ///< position among those that the updater was made for
  std::int64_t begin = 0, end = 0;
  at::Tensor gradient = {};  ///< of all of the parameter, and there in these elements, already scaled
  at::Tensor rows = {};      ///< of a sparse parameter: `gradient` is that of these rows, begin to end are all elements
};

/// Several threads may update parts that do not overlap, once state() has been called.
class ParameterUpdater {
 public:
  virtual ~ParameterUpdater() = default;
  /// Updates values in place. `step` counts from 1.
  virtual void update(double learning_rate, std::int64_t step, const std::vector<UpdatePart>& parts) = 0;
  /// All that it remembers from step to step, made now if there was no step yet. The tensors are the live ones: a
  /// checkpoint copies them, a resumed job fills them in.
  virtual std::vector<UpdaterState> state() = 0;
};

/// An updater of these parameters, which outlive it.
using MakeUpdater = std::function<std::unique_ptr<ParameterUpdater>(const std::vector<Parameter*>& parameters)>;

}  // namespace lockstep
