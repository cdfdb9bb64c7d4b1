// SPDX-License-Identifier: Apache-2.0
//
// What the layers of one worker computed in one training step, to be looked at: by name, in safetensors.
//
//   activation/<layer>/<output>   [samples, ...]: of the worker's micro-batches, one behind the other
//   gradient/<layer>/<output>     the same of the gradient of the loss by it
//   parameter_gradient/<name>     before clipping; with divided parameters the worker's part, "<name>[begin:end]"
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "runtime/schedule/step_header.hpp"

namespace lockstep {

using DumpedTensors = std::map<std::string, at::Tensor>;
/// Called by the worker of row `row` when its part of the step has ended.
using TakeDump = std::function<void(int row, const DumpedTensors& tensors)>;

/// One thread, the worker's.
class StepDump {
 public:
  /// `step`: 0: none.
  StepDump(std::int64_t step, TakeDump take) : step_(step), take_(std::move(take)) {}

  bool wants(const StepHeader& header) const { return step_ > 0 && header.mode == Mode::train && header.step == step_; }
  /// Nobody writes into it any more. A micro-batch's second time (recomputed) is its first. Undefined: nothing.
  void add(const std::string& name, int micro_batch, const at::Tensor& tensor);
  /// The step has ended.
  void finish(int row);

 private:
  std::int64_t step_;
  TakeDump take_;
  std::map<std::string, std::map<int, at::Tensor>> tensors_;
};

}  // namespace lockstep
