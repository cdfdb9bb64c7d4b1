// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/ledger.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

/// A sum by block, then in the model's parameter order.
double norm_of(const std::vector<RowResult>& rows) {
  std::map<std::pair<int, int>, double> squares;
  for (const RowResult& row : rows)
    for (std::size_t i = 0; i < row.norm.parameters.size(); ++i)
      squares[{row.norm.parameters[i], row.norm.blocks[i]}] = row.norm.squares[i];
  std::map<int, double> of_parameters;
  for (const auto& [part, square] : squares) of_parameters[part.first] += square;
  double sum = 0;
  for (const auto& [parameter, square] : of_parameters) sum += square;
  return std::sqrt(sum);
}

}  // namespace

StepHeader Ledger::open(const WaitLimits& limits) {
  const double time_us = now_us();
  previous_ = std::move(running_);
  previous_.elapsed_us = time_us - header_time_us_;
  if (!saved_.empty()) decider_.saved(std::exchange(saved_, {}));
  for (const StepResult& result : finished_) decider_.take(result);
  StepHeader header = decider_.next(limits);
  header_time_us_ = time_us + header.idle_us;
  header.sequence = previous_.sequence + 1;
  header.finished = std::exchange(finished_, {});
  running_ = {};
  running_.sequence = header.sequence;
  running_.mode = header.mode;
  running_.step = header.step;
  running_.heads = header.heads;
  running_.learning_rate = header.learning_rate;
  running_.micro_batches = static_cast<int>(header.slices.size());
  running_.last_of_evaluation = header.last_of_evaluation;
  running_.set = header.set;
  for (const std::int64_t rows : header.slices) running_.samples += rows;
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
  std::sort(rows_.begin(), rows_.end(),
            [](const RowResult& a, const RowResult& b) { return a.report.row < b.report.row; });
  std::vector<Numerator> losses;
  for (const RowResult& row : rows_) {
    losses.insert(losses.end(), row.losses.begin(), row.losses.end());
    previous_.non_finite = first_of(previous_.non_finite, row.non_finite);
    previous_.signalled = previous_.signalled || row.signalled;
    previous_.workers.push_back(row.report);
    saved_.insert(saved_.end(), row.saved.begin(), row.saved.end());
  }
  std::sort(losses.begin(), losses.end());
  for (const Numerator& loss : losses) previous_.heads[static_cast<std::size_t>(loss.head)].sum += loss.value;
  previous_.gradient_norm = norm_of(rows_);
  rows_.clear();
  if (previous_.mode == Mode::train || previous_.mode == Mode::evaluate) finished_.push_back(std::move(previous_));
  previous_ = {};
}

}  // namespace lockstep
