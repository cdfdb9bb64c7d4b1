// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/results.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

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

double norm_of(const NormParts& parts) {
  RowResult row;
  row.norm = parts;
  return norm_of(squared_gradients({row}));
}

void find_non_finite(RowResult& result, const ModelGraph& graph, int micro_batches) {
  for (std::size_t i = 0; i < result.norm.squares.size(); ++i) {
    if (std::isfinite(result.norm.squares[i])) continue;
    const ParameterInfo& info = graph.parameters[static_cast<std::size_t>(result.norm.parameters[i])];
    result.non_finite =
        first_of(result.non_finite, {info.holders.front(), micro_batches - 1, "gradient of " + info.name});
  }
}

void set_peaks(WorkerReport& report, const MemoryByKind& peak) {
  report.peak_by_kind = peak;
  report.peak_bytes = std::accumulate(peak.begin(), peak.end(), std::int64_t{0});
}

void add_to(WorkerReport& report, const WorkerReport& further) {
  for (const auto time : {&WorkerReport::compute_us, &WorkerReport::wait_us, &WorkerReport::data_us,
                          &WorkerReport::update_us, &WorkerReport::reduce_us, &WorkerReport::replica_wait_us})
    report.*time += further.*time;
  if (report.begin_us == 0 || (further.begin_us > 0 && further.begin_us < report.begin_us))
    report.begin_us = further.begin_us;
  report.end_us = std::max(report.end_us, further.end_us);
  if (further.peak_bytes > report.peak_bytes) {
    report.peak_bytes = further.peak_bytes;
    report.peak_by_kind = further.peak_by_kind;
  }
  report.in_flight_bytes = std::max(report.in_flight_bytes, further.in_flight_bytes);
  report.product_rate = std::max(report.product_rate, further.product_rate);
  report.sent_bytes += further.sent_bytes;
  report.received_bytes += further.received_bytes;
  for (const StageReport& stage : further.stages) {
    const auto same = std::find_if(report.stages.begin(), report.stages.end(),
                                   [&](const StageReport& other) { return other.stage == stage.stage; });
    if (same == report.stages.end()) {
      report.stages.push_back(stage);
      continue;
    }
    for (const auto time : {&StageReport::forward_us, &StageReport::input_grad_us, &StageReport::weight_grad_us,
                            &StageReport::recompute_us, &StageReport::operations})
      (*same).*time += stage.*time;
    same->recomputed += stage.recomputed;
    for (std::size_t layer = 0; layer < same->layer_us.size(); ++layer) same->layer_us[layer] += stage.layer_us[layer];
  }
}

StepResult result_of(const StepHeader& header) {
  StepResult result;
  result.sequence = header.sequence;
  result.mode = header.mode;
  result.step = header.step;
  result.heads = header.heads;
  result.learning_rate = header.learning_rate;
  result.micro_batches = static_cast<int>(header.slices.size());
  result.last_of_evaluation = header.last_of_evaluation;
  result.set = header.set;
  for (const std::int64_t rows : header.slices) result.samples += rows;
  return result;
}

/// Of a batch of an evaluation; the last one has the values.
void Results::add_metrics(StepResult& result, std::vector<MetricState> states) {
  std::sort(states.begin(), states.end(), [](const MetricState& a, const MetricState& b) {
    return std::tie(a.head, a.metric, a.micro_batch) < std::tie(b.head, b.metric, b.micro_batch);
  });
  metric_states_.resize(metrics_.size());
  for (std::size_t head = 0; head < metrics_.size(); ++head) metric_states_[head].resize(metrics_[head].size());
  for (const MetricState& state : states) {
    const auto head = static_cast<std::size_t>(state.head), metric = static_cast<std::size_t>(state.metric);
    metrics_[head][metric]->merge(metric_states_[head][metric], state.numbers);
  }
  if (!result.last_of_evaluation) return;
  for (std::size_t head = 0; head < metrics_.size(); ++head)
    for (std::size_t metric = 0; metric < metrics_[head].size(); ++metric) {
      const Metric& of = *metrics_[head][metric];
      const std::vector<double>& all = metric_states_[head][metric];
      result.metrics.push_back({metric_name(metrics_, head, of), of.value(all), of.picture(all)});
    }
  metric_states_.clear();
}

void Results::complete(StepResult& result, std::vector<RowResult> rows) {
  std::sort(rows.begin(), rows.end(),
            [](const RowResult& a, const RowResult& b) { return a.report.row < b.report.row; });
  std::vector<Numerator> losses;
  std::vector<MetricState> metrics;
  for (const RowResult& row : rows) {
    metrics.insert(metrics.end(), row.metrics.begin(), row.metrics.end());
    losses.insert(losses.end(), row.losses.begin(), row.losses.end());
    result.non_finite = first_of(result.non_finite, row.non_finite);
    result.signalled = result.signalled || row.signalled;
    result.workers.push_back(row.report);
  }
  std::sort(losses.begin(), losses.end());
  for (const Numerator& loss : losses) result.heads[static_cast<std::size_t>(loss.head)].sum += loss.value;
  if (result.mode == Mode::evaluate) add_metrics(result, std::move(metrics));
  const std::map<int, double> gradients = squared_gradients(rows);
  result.gradient_norm = norm_of(gradients);
  result.norms = norms_of(rows, gradients);
}

}  // namespace lockstep
