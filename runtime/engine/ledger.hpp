// SPDX-License-Identifier: Apache-2.0
//
// What row 0 keeps of a job: which programs are on their way, and what they gave. It asks the decider what comes next,
// merges the results of all rows, one program late, and adds up the norm. It sends and receives nothing.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/engine/director.hpp"

namespace lockstep {

class Ledger {
 public:
  /// The decider outlives it.
  explicit Ledger(Decider& decider) : decider_(decider) {}

  /// The next program begins: its header, with all results that have become known.
  StepHeader open(const WaitLimits& limits);

  /// Another row's parts of the norm of the program at hand.
  void add(const NormParts& parts);
  /// The norm of all parts, with row 0's own: a sum in the model's parameter order. Forgets them.
  double total_norm(const NormParts& own);

  /// What another row has to say of the program before.
  void add(RowResult result) { rows_.push_back(std::move(result)); }
  /// The program at hand has ended here: with row 0's own result of the one before, that one is complete.
  void close(const RowResult& own);
  /// The norm of the program at hand, where it is known before its results are.
  void set_norm(double norm) { running_.gradient_norm = norm; }

 private:
  Decider& decider_;
  std::map<int, double> squares_;   // by parameter
  std::vector<RowResult> rows_;     // of the program before, as they arrive
  std::vector<std::string> saved_;  // of all rows, for the decider
  StepResult running_, previous_;
  double header_time_us_ = 0;
  std::vector<StepResult> finished_;
};

}  // namespace lockstep
