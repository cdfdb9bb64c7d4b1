// SPDX-License-Identifier: Apache-2.0
//
// The loss of a checkpoint on the evaluation set. Evaluation is a program of the engine.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

struct EvaluatedSet {
  std::string name;
  double loss = 0;
  std::int64_t samples = 0;
  std::vector<MetricValue> metrics = {};  ///< train.metrics
};

struct Evaluation {
  std::int64_t step = 0;  ///< of the checkpoint
  double loss = 0;
  std::int64_t samples = 0;
  std::vector<MetricValue> metrics = {};   ///< train.metrics
  std::vector<EvaluatedSet> further = {};  ///< data.evals
  std::vector<std::string> class_names = {};
  std::string not_finite = {};  ///< what was not: the loss counts for nothing then; empty: all was finite
};

/// `checkpoint`: its folder. `averaged`: with the averages of its weights (train.ema). Collective; the same on every
/// rank. Throws AlreadyReported for what is found before it starts.
Evaluation evaluate(Process& process, const ConfigSource& source, const std::string& checkpoint, bool averaged = false);

}  // namespace lockstep
