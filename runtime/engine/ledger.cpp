// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/ledger.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "runtime/base/clock.hpp"
#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

/// By parameter, of sums by block.
std::map<int, double> squared_gradients(const std::vector<RowResult>& rows) {
  std::map<std::pair<int, int>, double> squares;
  for (const RowResult& row : rows)
    for (std::size_t i = 0; i < row.norm.parameters.size(); ++i)
      squares[{row.norm.parameters[i], row.norm.blocks[i]}] = row.norm.squares[i];
  std::map<int, double> of_parameters;
  for (const auto& [part, square] : squares) of_parameters[part.first] += square;
  return of_parameters;
}

/// A sum in the model's parameter order.
double norm_of(const std::map<int, double>& squares) {
  double sum = 0;
  for (const auto& [parameter, square] : squares) sum += square;
  return std::sqrt(sum);
}

/// Of what rows have in common each counts once.
std::vector<ParameterNorms> norms_of(const std::vector<RowResult>& rows, const std::map<int, double>& gradients) {
  std::map<std::pair<int, std::int64_t>, std::pair<double, double>> squares;
  for (const RowResult& row : rows)
    for (std::size_t i = 0; i < row.changes.parameters.size(); ++i)
      squares[{row.changes.parameters[i], row.changes.begins[i]}] = {row.changes.squares[2 * i],
                                                                     row.changes.squares[2 * i + 1]};
  std::map<int, std::pair<double, double>> of_parameters;
  for (const auto& [part, square] : squares) {
    of_parameters[part.first].first += square.first;
    of_parameters[part.first].second += square.second;
  }
  std::vector<ParameterNorms> norms;
  for (const auto& [parameter, square] : of_parameters) {
    const auto gradient = gradients.find(parameter);
    norms.push_back({parameter, std::sqrt(square.first),
                     gradient == gradients.end() ? 0.0 : std::sqrt(gradient->second), std::sqrt(square.second)});
  }
  return norms;
}

}  // namespace

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

/// Of the program before, an evaluation's batch; the last one has the values.
void Ledger::add_metrics(std::vector<MetricState> states) {
  std::sort(states.begin(), states.end(), [](const MetricState& a, const MetricState& b) {
    return std::tie(a.head, a.metric, a.micro_batch) < std::tie(b.head, b.metric, b.micro_batch);
  });
  metric_states_.resize(metrics_.size());
  for (std::size_t head = 0; head < metrics_.size(); ++head) metric_states_[head].resize(metrics_[head].size());
  for (const MetricState& state : states) {
    const auto head = static_cast<std::size_t>(state.head), metric = static_cast<std::size_t>(state.metric);
    metrics_[head][metric]->merge(metric_states_[head][metric], state.numbers);
  }
  if (!previous_.last_of_evaluation) return;
  for (std::size_t head = 0; head < metrics_.size(); ++head)
    for (std::size_t metric = 0; metric < metrics_[head].size(); ++metric) {
      const Metric& of = *metrics_[head][metric];
      const std::vector<double>& all = metric_states_[head][metric];
      previous_.metrics.push_back({metric_name(metrics_, head, of), of.value(all), of.picture(all)});
    }
  metric_states_.clear();
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
  std::vector<MetricState> metrics;
  for (const RowResult& row : rows_) {
    metrics.insert(metrics.end(), row.metrics.begin(), row.metrics.end());
    losses.insert(losses.end(), row.losses.begin(), row.losses.end());
    previous_.non_finite = first_of(previous_.non_finite, row.non_finite);
    previous_.signalled = previous_.signalled || row.signalled;
    previous_.workers.push_back(row.report);
    saved_.insert(saved_.end(), row.saved.begin(), row.saved.end());
  }
  std::sort(losses.begin(), losses.end());
  for (const Numerator& loss : losses) previous_.heads[static_cast<std::size_t>(loss.head)].sum += loss.value;
  if (previous_.mode == Mode::evaluate) add_metrics(std::move(metrics));
  const std::map<int, double> gradients = squared_gradients(rows_);
  previous_.gradient_norm = norm_of(gradients);
  previous_.norms = norms_of(rows_, gradients);
  rows_.clear();
  if (previous_.mode == Mode::train || previous_.mode == Mode::evaluate) finished_.push_back(std::move(previous_));
  previous_ = {};
}

}  // namespace lockstep
