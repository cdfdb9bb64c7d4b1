// SPDX-License-Identifier: Apache-2.0
//
// How fast a run is: samples or tokens, and floating-point operations, in a second. Of one step, or of several.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/schedule/step_result.hpp"

namespace lockstep {

struct Pace {
  std::int64_t tokens_per_sample = 0;  ///< 0: the samples are no sequences of tokens
  std::int64_t samples = 0;
  double operations = 0;    ///< StepResult::operations
  double product_rate = 0;  ///< StepResult::product_rate
  double us = 0;

  void add(const StepResult& step);

  double samples_per_s() const;
  std::optional<double> tokens_per_s() const;
  std::optional<double> operations_per_s() const;  ///< empty: no layer counts any
  std::optional<double> product_share() const;     ///< that over product_rate
};

/// "912 samples/s"; of sequences "26.3k tokens/s".
std::string rate_text(const Pace& pace);
/// "1.23 TFLOP/s (45 %)"; without what is not known, so perhaps empty.
std::string work_text(const Pace& pace);

}  // namespace lockstep
