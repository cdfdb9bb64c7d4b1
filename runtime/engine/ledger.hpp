// SPDX-License-Identifier: Apache-2.0
//
// What row 0 keeps of a job: which programs are on their way, and what they gave. It asks the decider what comes next,
// merges the results of all rows, one program late, and adds up the norm. It sends and receives nothing.
#pragma once

#include <string>
#include <vector>

#include "runtime/engine/director.hpp"
#include "runtime/engine/results.hpp"
#include "runtime/engine/tensor_math.hpp"

namespace lockstep {

class Ledger {
 public:
  /// Both outlive it. `metrics`: of evaluations.
  Ledger(Decider& decider, const Metrics& metrics) : decider_(decider), results_(metrics) {}

  /// The next program begins: its header, with all results that have become known.
  StepHeader open(const WaitLimits& limits);

  /// Another row's part of the norm of the program at hand.
  void add(SquaredNorms part) { squares_.push_back(std::move(part)); }
  /// The norm of all parts, with row 0's own, where that is. Forgets them.
  at::Tensor total_norm(const SquaredNorms& own);

  /// What another row has to say of the program before.
  void add(RowResult result) { rows_.push_back(std::move(result)); }
  /// The program at hand has ended here: with row 0's own result of the one before, that one is complete.
  void close(const RowResult& own);

 private:
  Decider& decider_;
  Results results_;
  std::vector<SquaredNorms> squares_;
  std::vector<RowResult> rows_;     // of the program before, as they arrive
  std::vector<std::string> saved_;  // of all rows, for the decider
  StepResult running_, previous_;
  double header_time_us_ = 0;
  std::vector<StepResult> finished_;
};

}  // namespace lockstep
