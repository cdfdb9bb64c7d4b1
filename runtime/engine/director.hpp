// SPDX-License-Identifier: Apache-2.0
//
// Who steers a run from outside of the engine: the decider says what comes next, the feeder reads the data for it.
#pragma once

#include <string>
#include <vector>

#include "runtime/layer/layer.hpp"
#include "runtime/observe/waiting.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// On the thread of row 0.
class Decider {
 public:
  virtual ~Decider() = default;
  /// What a program gave: each once, in order, before next(). What is taken out of it nobody else is told.
  virtual void take(StepResult& result) = 0;
  /// Told, before next(), what rows have written of checkpoints (StateKeeper::take_reports()).
  virtual void saved(std::vector<std::string>) {}
  /// The next program. Sequence and finished of the header are filled in by the engine. Must end with Mode::flush, then
  /// Mode::stop. Who has nothing to do for now waits with idle_until(), as long as it takes; the results of the last
  /// two programs come with the programs after them (a flush brings them), and another worker that dies meanwhile
  /// without ending its process is found when work goes on.
  virtual StepHeader next(const WaitLimits& limits) = 0;
};

/// On the thread of the worker that has stage 0.
class Feeder {
 public:
  virtual ~Feeder() = default;
  /// A program begins that computes.
  virtual void begin(const StepHeader& header) = 0;
  /// The data's entries (ModelGraph::sources order) for one micro-batch of it.
  virtual Tensors micro_batch(int micro_batch) = 0;
  /// With servers: denominators of the losses, by head, of what it reads of the batch (StepHeader::share).
  virtual std::vector<double> denominators() { return {}; }
  /// How long it has stood still for data since the last call, also where the decider asked for it.
  virtual double take_waited_us() { return 0; }
};

}  // namespace lockstep
