// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/metrics.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/base/clock.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/median.hpp"
#include "runtime/base/output_file.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

/// The library would write null for what is not finite. Finite doubles it writes so that they read back exactly.
Json number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

Json number_or_null(const std::optional<double>& value) {
  return value ? number(*value) : Json();
}

// Per head, before weighing; only where there are several.
void add_losses_of_heads(Json& line, const StepResult& result) {
  if (result.heads.size() < 2) return;
  Json losses = Json::array();
  for (const HeadLoss& head : result.heads) losses.push_back(number(head.loss()));
  line["losses"] = std::move(losses);
}

double milliseconds(double us) {
  return us / 1e3;
}

/// What there is of them.
void add_rates(Json& line, const Pace& pace) {
  line["samples_per_s"] = number(pace.samples_per_s());
  if (const auto tokens = pace.tokens_per_s()) line["tokens_per_s"] = number(*tokens);
  if (const auto operations = pace.operations_per_s()) line["tflop_per_s"] = number(*operations * 1e-12);
  if (const auto share = pace.product_share()) line["product_share"] = number(*share);
}

Json median_or_null(const std::vector<double>& values) {
  const double middle = median(values);
  return std::isnan(middle) ? Json() : number(middle);  // nothing was timed
}

Json by_kind(const MemoryByKind& bytes) {
  Json object = Json::object();
  for (std::size_t kind = 0; kind < bytes.size(); ++kind)
    object[to_string(static_cast<MemoryKind>(kind))] = bytes[kind];
  return object;
}

Json step_times(const std::vector<double>& step_ms) {
  if (step_ms.empty()) return nullptr;
  const auto [least, most] = std::minmax_element(step_ms.begin(), step_ms.end());
  return {{"median", median_or_null(step_ms)}, {"min", number(*least)}, {"max", number(*most)}};
}

Json of_layer(const LayerPrediction& layer) {
  return {{"layer", layer.name}, {"step_ms", number(layer.step_ms)}, {"measured_ms", number(layer.measured_ms)}};
}

void add_prediction(Json& summary, const Prediction& predicted) {
  Json json = {{"by", predicted.planned ? "plan" : "measured costs"},
               {"step_ms", number(predicted.step_ms)},
               {"bubble", number(predicted.bubble)}};
  if (predicted.planned) {
    json["peak_bytes"] = predicted.peak_bytes;
    if (const LayerPrediction* miss = predicted.largest_miss()) json["largest_miss"] = of_layer(*miss);
    for (const LayerPrediction& layer : predicted.layers) json["layers"].push_back(of_layer(layer));
  } else {
    summary["in_flight_bytes"] = predicted.measured_in_flight_bytes;
    json["in_flight_bytes"] = predicted.in_flight_bytes;
  }
  summary["predicted"] = std::move(json);
}

/// Whether a resumed run leaves this line standing. The last line of a killed job may be half of one.
bool is_kept(const std::string& line, std::int64_t step) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  if (json.contains("step")) return json["step"].is_number() && json["step"].get<std::int64_t>() <= step;
  if (json.contains("norms")) return json["norms"].value("step", step + 1) <= step;
  return json.contains("eval") && json["eval"].value("step", step) < step;
}

bool is_evaluation_of(const std::string& line, std::int64_t step) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("eval") && json["eval"].value("step", std::int64_t{-1}) == step;
}

/// The file keeps what was before; it is replaced as a whole. Returns whether it had an evaluation of `step`.
bool cut_after(const std::string& path, std::int64_t step) {
  std::ifstream in(path);
  if (!in) return false;
  bool evaluated = false;
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    if (is_kept(line, step)) kept += line + '\n';
    evaluated = evaluated || is_evaluation_of(line, step);
  }
  write_whole_file(path, kept);
  return evaluated;
}

}  // namespace

const LayerPrediction* Prediction::largest_miss() const {
  const auto miss_ms = [](const LayerPrediction& layer) { return std::abs(layer.measured_ms - layer.step_ms); };
  const auto most = std::max_element(layers.begin(), layers.end(),
                                     [&](const auto& a, const auto& b) { return miss_ms(a) < miss_ms(b); });
  return most == layers.end() ? nullptr : &*most;
}

std::optional<double> Prediction::common_factor() const {
  constexpr double far = 0.1, near = 0.1, nearly_all = 0.8;
  double expected = 0, measured = 0, alike = 0;
  for (const LayerPrediction& layer : layers) expected += layer.step_ms, measured += layer.measured_ms;
  const double factor = measured / expected;
  if (!(std::abs(factor - 1) > far)) return std::nullopt;
  for (const LayerPrediction& layer : layers)
    if (std::abs(layer.measured_ms - factor * layer.step_ms) <= near * factor * layer.step_ms) alike += layer.step_ms;
  return alike >= nearly_all * expected ? std::optional(factor) : std::nullopt;
}

double mean_of_counts(const std::vector<std::int64_t>& counts) {
  double all = 0, sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    all += static_cast<double>(counts[i]);
    sum += static_cast<double>(counts[i]) * static_cast<double>(i);
  }
  return all > 0 ? sum / all : 0.0;
}

double measured_bubble(const StepResult& result) {
  double workers = 0, compute_us = 0;
  for (const WorkerReport& report : result.workers) {
    if (report.is_server) continue;
    ++workers;
    compute_us += report.compute_us;
  }
  const double available_us = workers * result.elapsed_us;
  return available_us > 0 && result.staleness.empty() ? 1 - compute_us / available_us
                                                      : std::numeric_limits<double>::quiet_NaN();
}

MetricsWriter::MetricsWriter(const std::string& path, std::int64_t resume_after, std::int64_t tokens_per_sample)
    : path_(path), started_us_(now_us()), timed_{.tokens_per_sample = tokens_per_sample} {
  // What is no file has no lines to take out, and what a shell's `>>` kept is not ours to empty.
  const bool in_place = place_of_output(path).in_place;
  if (resume_after >= 0 && !in_place && cut_after(path, resume_after)) taken_out_ = resume_after;
  out_.open(path, resume_after >= 0 || in_place ? std::ios::app : std::ios::trunc);
  if (!out_) throw UserError(concat("metrics: cannot write ", path, ": ", std::strerror(errno)));
}

void MetricsWriter::step(const StepResult& result, const std::vector<std::string>& parameters) {
  const double step_ms = milliseconds(result.elapsed_us);
  const double bubble = measured_bubble(result);
  Json workers = Json::array();
  peak_bytes_.resize(result.workers.size());
  peak_by_kind_.resize(result.workers.size());
  product_rates_.clear();
  for (std::size_t row = 0; row < result.workers.size(); ++row) {
    const WorkerReport& report = result.workers[row];
    workers.push_back({{"compute_ms", number(milliseconds(report.compute_us))},
                       {"wait_ms", number(milliseconds(report.wait_us))},
                       {"peak_bytes", report.peak_bytes},
                       {"peak_by_kind", by_kind(report.peak_by_kind)}});
    if (report.reduce_us > 0) workers.back()["reduce_ms"] = number(milliseconds(report.reduce_us));
    if (report.data_us > 0) workers.back()["data_ms"] = number(milliseconds(report.data_us));
    if (report.replica_wait_us > 0) workers.back()["replica_wait_ms"] = number(milliseconds(report.replica_wait_us));
    if (report.sent_bytes + report.received_bytes > 0)
      workers.back().update({{"sent_bytes", report.sent_bytes}, {"received_bytes", report.received_bytes}});
    product_rates_.push_back(report.product_rate);
    if (report.peak_bytes < peak_bytes_[row]) continue;
    peak_bytes_[row] = report.peak_bytes;
    peak_by_kind_[row] = report.peak_by_kind;
  }
  Json line = {{"step", result.step},
               {"loss", number(result.loss())},
               {"grad_norm", number(result.gradient_norm)},
               {"lr", number(result.learning_rate)},
               {"step_ms", number(step_ms)}};
  Pace pace{.tokens_per_sample = timed_.tokens_per_sample};
  pace.add(result);
  add_rates(line, pace);
  if (result.staleness.empty())
    line["bubble"] = number(bubble);
  else
    line["staleness"] = result.staleness;
  line["workers"] = std::move(workers);
  add_losses_of_heads(line, result);
  if (steps_++ > 0) {
    step_ms_.push_back(step_ms);
    if (result.staleness.empty()) bubbles_.push_back(bubble);
    timed_.add(result);
  }
  samples_ += result.samples;
  loss_ = result.loss();
  write(line.dump());
  if (result.norms.empty()) return;
  Json norms = Json::object();
  for (const ParameterNorms& of : result.norms)
    norms[parameters.at(static_cast<std::size_t>(of.parameter))] = {{"weight", number(of.weight)},
                                                                    {"gradient", number(of.gradient)},
                                                                    {"update", number(of.update)},
                                                                    {"ratio", number(of.update / of.weight)}};
  write(Json{{"norms", {{"step", result.step}, {"parameters", std::move(norms)}}}}.dump());
}

void MetricsWriter::evaluation(const StepResult& result, const std::string& set) {
  if (result.set == 0) {
    eval_loss_ = result.loss();
    // A NaN is never the best, and never keeps a later number from being it.
    if (!best_eval_loss_ || std::isnan(*best_eval_loss_) || *eval_loss_ < *best_eval_loss_)
      best_eval_loss_ = eval_loss_;
  }
  Json eval = {{"step", result.step}, {"eval_loss", number(result.loss())}, {"samples", result.samples}};
  if (!set.empty()) eval["set"] = set;
  add_losses_of_heads(eval, result);
  for (const MetricValue& metric : result.metrics) {
    eval["metrics"][metric.name] = number(metric.value);
    if (!metric.picture.empty()) eval["pictures"][metric.name] = metric.picture;
  }
  write(Json{{"eval", eval}}.dump());
}

void MetricsWriter::summary(const std::optional<Prediction>& predicted, const std::optional<ServerFigures>& servers) {
  Json peaks = Json::array();
  for (const MemoryByKind& peak : peak_by_kind_) peaks.push_back(by_kind(peak));
  Json summary = {
      {"steps", steps_}, {"samples", samples_}, {"step_ms", step_times(step_ms_)}, {"samples_per_s", Json()}};
  if (timed_.samples > 0) add_rates(summary, timed_);
  if (timed_.product_share())
    for (const double rate : product_rates_) summary["product_tflop_per_s"].push_back(number(rate * 1e-12));
  if (predicted && predicted->exposed) summary["exposed_communication"] = number(*predicted->exposed);
  if (predicted && predicted->replicas) {
    const ReplicaFigures& replicas = *predicted->replicas;
    summary["replicas"] = {{"count", replicas.count},
                           {"wait_share", number(replicas.wait_share)},
                           {"reduce_share", number(replicas.reduce_share)},
                           {"bytes", replicas.bytes}};
    if (replicas.bus_gb_per_s) summary["replicas"]["busbw_gb_per_s"] = number(*replicas.bus_gb_per_s);
  }
  if (servers)
    summary["servers"] = {{"count", servers->servers},
                          {"wait_share", number(servers->wait_share)},
                          {"sent_bytes", number(servers->sent_bytes)},
                          {"received_bytes", number(servers->received_bytes)},
                          {"staleness", servers->staleness}};
  summary.update({{"loss", number_or_null(loss_)},
                  {"eval_loss", number_or_null(eval_loss_)},
                  {"best_eval_loss", number_or_null(best_eval_loss_)},
                  {"bubble", median_or_null(bubbles_)},
                  {"peak_bytes", peak_bytes_},
                  {"peak_by_kind", peaks},
                  {"wall_s", number((now_us() - started_us_) / 1e6)}});
  if (predicted) add_prediction(summary, *predicted);
  write(Json{{"summary", summary}}.dump());
}

void MetricsWriter::write(const std::string& line) {
  out_ << line << '\n' << std::flush;
  if (!out_) throw Error(concat("metrics: cannot write ", path_, ": ", std::strerror(errno)));
}

RunMetrics metrics_from_lines(const std::string& text, const std::string& file) {
  RunMetrics metrics;
  const auto number = [](const Json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
  };
  std::size_t start = 0, count = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    ++count;
    try {
      const Json json = Json::parse(line);
      if (json.contains("eval")) {
        if (const Json& eval = json.at("eval"); eval.value("set", "eval") == "eval") {
          metrics.eval_losses.emplace_back(eval.at("step"), number(eval, "eval_loss"));
          if (eval.contains("metrics"))
            for (const auto& [name, value] : eval.at("metrics").items())
              metrics.metrics[name].emplace_back(eval.at("step"), number(eval.at("metrics"), name.c_str()));
          if (eval.contains("pictures"))
            metrics.pictures = eval.at("pictures").get<std::map<std::string, std::vector<double>>>();
        }
      } else if (json.contains("step")) {
        metrics.losses.emplace_back(json.at("step"), number(json, "loss"));
        metrics.step_ms.push_back(number(json, "step_ms"));
        metrics.bubbles.push_back(number(json, "bubble"));
        if (json.contains("staleness")) {
          const auto counts = json.at("staleness").get<std::vector<std::int64_t>>();
          metrics.staleness.resize(std::max(metrics.staleness.size(), counts.size()));
          for (std::size_t i = 0; i < counts.size(); ++i) metrics.staleness[i] += counts[i];
        }
        metrics.tflop_per_s.push_back(number(json, "tflop_per_s"));
        metrics.product_shares.push_back(number(json, "product_share"));
        const Json& workers = json.at("workers");
        metrics.peak_bytes.resize(workers.size());
        double data_ms = std::nan("");
        for (const Json& worker : workers) data_ms = std::fmax(data_ms, number(worker, "data_ms"));
        metrics.data_ms.push_back(data_ms);
        for (std::size_t w = 0; w < workers.size(); ++w)
          metrics.peak_bytes[w] = std::max(metrics.peak_bytes[w], number(workers[w], "peak_bytes"));
      }
    } catch (const Json::exception& error) {
      throw UserError(concat(file, ":", count, ": not a line that lockstep train wrote: ", one_line(reason_of(error))));
    }
  }
  return metrics;
}

}  // namespace lockstep
