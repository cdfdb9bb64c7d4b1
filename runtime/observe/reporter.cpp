// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/reporter.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/median.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/schedule/bucket_work.hpp"

namespace lockstep {
namespace {

/// Of the worker that has had most alive.
double most_bytes(const StepResult& result) {
  std::int64_t most = 0;
  for (const WorkerReport& worker : result.workers) most = std::max(most, worker.peak_bytes);
  return static_cast<double>(most);
}

/// "20.3 against 20.1 MiB (-1.0 %)".
std::string against(double predicted, double measured, double unit, const char* name, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << predicted / unit << " against " << measured / unit << " " << name;
  if (predicted > 0)
    out << " (" << std::showpos << std::setprecision(1) << (measured / predicted - 1) * 100 << std::noshowpos << " %)";
  return out.str();
}

std::vector<std::string> lines_of(const Prediction& p) {
  std::ostringstream line;
  line << std::fixed << std::setprecision(1);
  if (!p.planned) {
    line << "simulated with the measured costs of stages: " << p.step_ms << " ms a step, bubble " << p.bubble * 100
         << " %; measured: " << p.measured_step_ms << " ms, bubble " << p.measured_bubble * 100 << " % (medians)";
    return {line.str()};
  }
  line << "the plan against measured (medians): step " << against(p.step_ms, p.measured_step_ms, 1, "ms", 2)
       << ", bubble " << p.bubble * 100 << " against " << p.measured_bubble * 100 << " %";
  std::vector<std::string> lines = {line.str()};
  constexpr std::size_t most = 8;  // of workers on a line
  std::vector<std::string> workers;
  for (std::size_t row = 0; row < std::min({most, p.peak_bytes.size(), p.measured_peak_bytes.size()}); ++row)
    workers.push_back(against(p.peak_bytes[row], p.measured_peak_bytes[row], 1048576, "MiB", 2));
  if (p.peak_bytes.size() > most) workers.push_back("...");
  lines.push_back("peak of tensors by worker: " + join(workers));
  if (const LayerPrediction* miss = p.largest_miss())
    lines.push_back(concat("off by most: layer '", miss->name, "', in a step ",
                           against(miss->step_ms, miss->measured_ms, 1, "ms", 3)));
  if (const std::optional<double> factor = p.common_factor())
    lines.push_back(
        concat("all layers took about ", static_cast<double>(std::lround(*factor * 100)) * 0.01,
               " times what the profile says: the machine runs at another speed, or has other work than "
               "when it was measured; measure again: lockstep profile --no-cache, or without the cache where "
               "partition: auto does it"));
  return lines;
}

/// "  accuracy 0.9712  f1 0.9688" of a whole evaluation; empty: nothing was measured but the loss.
std::string metrics_text(const StepResult& evaluation) {
  std::string text;
  for (const MetricValue& metric : evaluation.metrics)
    if (!metric.name.ends_with("confusion_matrix")) text += concat("  ", metric.name, " ", fixed_text(metric.value, 4));
  return text;
}

}  // namespace

namespace {

std::string line_of(const ReplicaFigures& figures) {
  std::string line =
      concat(figures.count, " replicas: ", percent_text(figures.wait_share), " of a step is waiting for one another, ",
             percent_text(figures.reduce_share), " adding up gradients");
  if (figures.bus_gb_per_s)
    line += concat("; a worker sends ", size_text(*std::max_element(figures.bytes.begin(), figures.bytes.end())),
                   " a step, at a bus bandwidth of ", fixed_text(*figures.bus_gb_per_s, 2), " GB/s");
  return line;
}

std::string line_of(const ServerFigures& figures) {
  const auto number = [](int count, const char* one) { return concat(count, " ", one, count == 1 ? "" : "s"); };
  const double mean = mean_of_counts(figures.staleness);
  return concat(number(figures.replicas, "replica"), ", ", number(figures.servers, "server"), ": ",
                percent_text(figures.wait_share), " of the workers' time is waiting for servers; a step sends them ",
                size_text(figures.sent_bytes), " and gets ", size_text(figures.received_bytes),
                figures.staleness.empty() ? "; all update together"
                                          : concat("; staleness ", fixed_text(mean, 2), " in the mean, ",
                                                   figures.staleness.size() - 1, " at most"));
}

}  // namespace

std::string step_line(const StepResult& result, const Pace& pace, std::int64_t steps) {
  const double step_ms = result.elapsed_us * 1e-3;
  const std::string work = work_text(pace);
  std::ostringstream norm;
  norm << std::setprecision(4) << result.gradient_norm;
  return concat("step ", result.step, "/", steps, "  loss ", fixed_text(result.loss(), 4), "  grad ", norm.str(), "  ",
                fixed_text(step_ms, step_ms < 100 ? 1 : 0), " ms  ", rate_text(pace), work.empty() ? "" : "  ", work,
                result.staleness.empty() ? concat("  bubble ", fixed_text(measured_bubble(result) * 100, 0), " %")
                                         : concat("  staleness ", fixed_text(mean_of_counts(result.staleness), 1)));
}

Reporter::Reporter(const ReporterOptions& options) : options_(options) {
  if (!options_.metrics_file.empty())
    metrics_.emplace(options_.metrics_file, options_.resume_after, options_.tokens_per_sample);
  const std::int64_t first_step = options_.resume_after < 0 ? -1 : options_.resume_after + 1;
  if (!options_.tensorboard_folder.empty()) tensorboard_.emplace(options_.tensorboard_folder, first_step);
  if (options_.console && options_.console->columns() > 0) progress_.emplace(options_.steps, options_.console);
}

void Reporter::on_result(const StepResult& result) {
  if (result.non_finite.found() && !not_finite_)
    not_finite_ = NotFiniteRun{result.non_finite, result.mode, result.step, evaluation_.samples, result.set};
  if (result.mode == Mode::train)
    on_step(result);
  else
    on_evaluation(result);
}

void Reporter::on_step(const StepResult& result) {
  last_ = result;
  losses_.push_back(result.loss());
  if (options_.program && !meter_) {
    program_ = &options_.program();
    meter_.emplace(*program_);
  }
  if (meter_ && losses_.size() > 1) {  // the first step pays for warming up
    replica_times_.resize(result.workers.size());
    data_us_.resize(result.workers.size());
    for (std::size_t row = 0; row < result.workers.size(); ++row) {
      data_us_[row] += result.workers[row].data_us;
      replica_times_[row].wait_us += result.workers[row].replica_wait_us;
      replica_times_[row].reduce_us += result.workers[row].reduce_us;
      servers_.sent_bytes += static_cast<double>(result.workers[row].sent_bytes);
      servers_.received_bytes += static_cast<double>(result.workers[row].received_bytes);
    }
    servers_.staleness.resize(std::max(servers_.staleness.size(), result.staleness.size()));
    for (std::size_t i = 0; i < result.staleness.size(); ++i) servers_.staleness[i] += result.staleness[i];
    meter_->add(result);
    step_ms_.push_back(result.elapsed_us * 1e-3);
    bubbles_.push_back(measured_bubble(result));
  }
  Pace pace{.tokens_per_sample = options_.tokens_per_sample};
  pace.add(result);
  if (metrics_) metrics_->step(result, options_.parameters);
  if (tensorboard_) {
    tensorboard_->scalar("train/loss", result.step, result.loss());
    if (result.heads.size() > 1)
      for (std::size_t head = 0; head < result.heads.size(); ++head)
        tensorboard_->scalar(concat("train/loss/head_", head), result.step, result.heads[head].loss());
    tensorboard_->scalar("train/grad_norm", result.step, result.gradient_norm);
    for (const ParameterNorms& of : result.norms) {
      const std::string& name = options_.parameters.at(static_cast<std::size_t>(of.parameter));
      tensorboard_->scalar("weight_norm/" + name, result.step, of.weight);
      tensorboard_->scalar("gradient_norm/" + name, result.step, of.gradient);
      tensorboard_->scalar("update_ratio/" + name, result.step, of.update / of.weight);
    }
    tensorboard_->scalar("train/learning_rate", result.step, result.learning_rate);
    tensorboard_->scalar("time/step_ms", result.step, result.elapsed_us * 1e-3);
    tensorboard_->scalar("time/samples_per_s", result.step, pace.samples_per_s());
    if (const auto tokens = pace.tokens_per_s()) tensorboard_->scalar("time/tokens_per_s", result.step, *tokens);
    if (const auto operations = pace.operations_per_s())
      tensorboard_->scalar("time/tflop_per_s", result.step, *operations * 1e-12);
    if (const auto share = pace.product_share()) tensorboard_->scalar("time/product_share", result.step, *share);
    if (result.staleness.empty())
      tensorboard_->scalar("time/bubble", result.step, measured_bubble(result));
    else
      tensorboard_->scalar("train/staleness", result.step, mean_of_counts(result.staleness));
    tensorboard_->scalar("memory/peak_bytes", result.step, most_bytes(result));
  }
  const bool due = result.step % options_.log_every == 0 || result.step == 1 || result.step == options_.steps;
  const Log log = due && !progress_ ? options_.log : options_.log.quiet();
  log.info(step_line(result, pace, options_.steps));
  if (progress_) progress_->update(result.step, result.loss(), pace);
}

void Reporter::on_evaluation(const StepResult& batch) {
  StepResult& sum = evaluation_;
  sum.add(batch);
  if (!batch.last_of_evaluation) return;
  const std::string set = options_.sets.empty() ? "" : options_.sets.at(static_cast<std::size_t>(sum.set));
  if (metrics_) metrics_->evaluation(sum, set);
  // TensorBoard forgets whole steps only, and this one stands: it is not written twice.
  const bool again = metrics_ && metrics_->took_out_evaluation(sum.step);
  if (tensorboard_ && !again) {
    const std::string of_set = sum.set == 0 ? "" : "/" + set;
    tensorboard_->scalar("eval/loss" + of_set, sum.step, sum.loss());
    for (const MetricValue& metric : sum.metrics)
      tensorboard_->scalar(concat("eval/", metric.name, of_set), sum.step, metric.value);
  }
  std::ostringstream line;
  line << "step " << sum.step << "/" << options_.steps << std::fixed << std::setprecision(4) << "  eval loss "
       << sum.loss() << metrics_text(sum) << "  (" << sum.samples << " samples" << (set.empty() ? "" : " of " + set)
       << ")";
  options_.log.info(line.str());
  evaluation_ = {};
}

void Reporter::on_stop(StopReason reason) {
  stop_ = reason;
  if (progress_) progress_->finish();
  const std::optional<Prediction> predicted = prediction();
  const std::optional<ServerFigures> servers = server_figures();
  if (metrics_) metrics_->summary(predicted, servers);
  if (servers) {
    options_.log.info(line_of(*servers));
    if (const std::string line = waited_for_data(); !line.empty()) options_.log.warn(line);
  }
  if (!predicted) return;
  for (const std::string& line : lines_of(*predicted)) options_.log.info(line);
  if (const std::string line = waited_for_data(); !line.empty()) options_.log.warn(line);
  if (predicted->replicas) options_.log.info(line_of(*predicted->replicas));
  if (predicted->exposed)
    options_.log.info(
        concat("communication that compute does not hide: at most ", percent_text(*predicted->exposed), " of a step"));
}

/// And what to change; empty where it is next to nothing. Without the first step.
std::string Reporter::waited_for_data() const {
  constexpr double worth_a_word = 0.01;
  const double all_us = std::accumulate(step_ms_.begin(), step_ms_.end(), 0.0) * 1e3;
  const auto most = std::max_element(data_us_.begin(), data_us_.end());
  if (most == data_us_.end() || !(*most > worth_a_word * all_us)) return "";
  return concat(percent_text(*most / all_us), " of a step worker ", most - data_us_.begin(),
                " stood still for data (data_ms of the metrics); ",
                program_->topology.servers > 0
                    ? "with servers none is read ahead: "
                    : "read it on more threads or further ahead (workers.readers, workers.read_ahead), or ",
                "hand it over in a form that is cheaper to read");
}

/// Without the first step.
std::optional<ReplicaFigures> Reporter::replica_figures() const {
  const Replicas& replicas = program_->topology.replicas;
  if (replicas.count == 1) return std::nullopt;
  ReplicaFigures figures;
  figures.count = replicas.count;
  figures.bytes.resize(replica_times_.size());
  const std::vector<double> elements = elements_between_replicas(*program_);
  for (std::size_t e = 0; e < elements.size(); ++e) {
    const Edge& edge = program_->edges[e];
    if (program_->wiring.memory_of(edge.from) != program_->wiring.memory_of(edge.to))
      figures.bytes[index(edge.from)] += elements[e] * options_.bytes_of_element;
  }
  const double all_us =
      1e3 * std::accumulate(step_ms_.begin(), step_ms_.end(), 0.0) * static_cast<double>(replica_times_.size());
  for (const ReplicaTime& time : replica_times_) {
    figures.wait_share += time.wait_us / all_us;
    figures.reduce_share += time.reduce_us / all_us;
  }
  const auto most =
      static_cast<std::size_t>(std::max_element(figures.bytes.begin(), figures.bytes.end()) - figures.bytes.begin());
  const double us = (replica_times_[most].wait_us + replica_times_[most].reduce_us) / meter_->steps();
  if (figures.bytes[most] > 0 && us > 0) figures.bus_gb_per_s = figures.bytes[most] / us * 1e-3;
  return figures;
}

/// Without the first step.
std::optional<ServerFigures> Reporter::server_figures() const {
  if (!program_ || program_->topology.servers == 0 || step_ms_.empty()) return std::nullopt;
  ServerFigures figures = servers_;
  figures.replicas = program_->topology.replicas.count;
  figures.servers = program_->topology.servers;
  const auto steps = static_cast<double>(step_ms_.size());
  figures.sent_bytes /= steps;
  figures.received_bytes /= steps;
  const double all_us = 1e3 * std::accumulate(step_ms_.begin(), step_ms_.end(), 0.0) * figures.replicas;
  for (const ReplicaTime& time : replica_times_) figures.wait_share += time.wait_us / all_us;
  return figures;
}

/// With servers there is none: steps are not what a program makes of them.
std::optional<Prediction> Reporter::prediction() const {
  if (!meter_ || meter_->steps() == 0 || program_->topology.servers > 0) return std::nullopt;
  Prediction prediction;
  prediction.measured_step_ms = median(step_ms_);
  prediction.measured_bubble = median(bubbles_);
  prediction.replicas = replica_figures();
  // Steps that follow one another without a barrier, unless something drains them.
  const Simulation simulation = simulate(*program_, meter_->costs());
  if (program_->workers() > 1)
    prediction.exposed = std::max(0.0, 1 - simulation.period_us * 1e-3 / prediction.measured_step_ms);
  if (options_.planned) {
    add_planned(prediction);
    return prediction;
  }
  prediction.step_ms = simulation.period_us * 1e-3;
  prediction.bubble = simulation.bubble_steady;
  prediction.in_flight_bytes = simulation.peak_bytes;
  prediction.measured_in_flight_bytes = meter_->in_flight_bytes();
  return prediction;
}

void Reporter::add_planned(Prediction& prediction) const {
  const PlanPrediction& plan = *options_.planned;
  prediction.planned = true;
  prediction.step_ms = plan.step_us * 1e-3;
  prediction.bubble = plan.bubble_steady;
  prediction.peak_bytes = plan.peak_bytes;
  for (const WorkerReport& worker : last_->workers)
    prediction.measured_peak_bytes.push_back(static_cast<double>(worker.peak_bytes));
  const std::vector<double> measured_us = meter_->layer_us();
  for (std::size_t layer = 0; layer < measured_us.size() && layer < plan.layers.size(); ++layer)
    prediction.layers.push_back(
        {plan.layers[layer].name, plan.layers[layer].step_us * 1e-3, measured_us[layer] * 1e-3});
}

}  // namespace lockstep
