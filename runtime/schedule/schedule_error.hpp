// SPDX-License-Identifier: Apache-2.0
//
// A schedule or program that cannot run: every finding, and the grid it was found in.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/error.hpp"
#include "runtime/schedule/action.hpp"

namespace lockstep {

/// One broken rule. `position` counts the entries of the row from 0; -1 when the finding is about a whole row.
struct Finding {
  WorkerId worker;
  int position = -1;
  std::string rule;     ///< short name, e.g. "blocked", "twice", "missing", "order", "accumulation"
  std::string message;  ///< a sentence: what, where, got, expected
  /// False for "accumulation" alone: it would run, but gradients would be summed in another order, to other bits.
  bool fatal = true;
};

class ScheduleError : public UserError {
 public:
  explicit ScheduleError(const std::string& message, std::vector<Finding> findings = {})
      : UserError(message), findings_(std::move(findings)) {}
  const std::vector<Finding>& findings() const { return findings_; }

 private:
  std::vector<Finding> findings_;
};

}  // namespace lockstep
