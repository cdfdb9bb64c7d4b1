// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/ledger.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/base/clock.hpp"

namespace lockstep {

StepHeader Ledger::open(const WaitLimits& limits) {
  const double time_us = now_us();
  previous_ = std::move(running_);
  previous_.elapsed_us = time_us - header_time_us_;
  if (!saved_.empty()) decider_.saved(std::exchange(saved_, {}));
  for (StepResult& result : finished_) decider_.take(result);
  StepHeader header = decider_.next(limits);
  header_time_us_ = time_us + header.idle_us;
  header.sequence = previous_.sequence + 1;
  header.finished = std::exchange(finished_, {});
  running_ = result_of(header);
  return header;
}

at::Tensor Ledger::total_norm(const SquaredNorms& own) {
  squares_.push_back(own);
  return lockstep::total_norm(std::exchange(squares_, {}), own.squares.device());
}

void Ledger::close(const RowResult& own) {
  if (previous_.sequence < 0) {
    rows_.clear();
    return;
  }
  rows_.push_back(own);
  for (RowResult& row : rows_) std::move(row.saved.begin(), row.saved.end(), std::back_inserter(saved_));
  results_.complete(previous_, std::exchange(rows_, {}));
  if (previous_.mode == Mode::train || previous_.mode == Mode::evaluate) finished_.push_back(std::move(previous_));
  previous_ = {};
}

}  // namespace lockstep
