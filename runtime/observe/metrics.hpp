// SPDX-License-Identifier: Apache-2.0
//
// Metrics for programs: a file of JSON lines. People read the log instead.
//
//   {"step":1,"loss":5.54,"grad_norm":1.2,"lr":0.001,"step_ms":35.1,"samples_per_s":911.7,"tokens_per_s":...,
//    "tflop_per_s":0.1,"product_share":0.45,"bubble":0.21,
//    "workers":[{"compute_ms":27.9,"wait_ms":6.8,"peak_bytes":1048576,"peak_by_kind":
//      {"parameters":...,"gradients":...,"optimizer":...,"activations":...,"slots":...}},...]}   per step, on one line
//   {"norms":{"step":1,"parameters":{"fc.0.weight":{"weight":5.1,"gradient":0.3,"update":0.01,"ratio":0.002},...}}}
//                                                                       per train.norms_every steps, behind the step
//   {"eval":{"step":50,"eval_loss":2.31,"samples":512,"metrics":{"accuracy":0.97},"pictures":{...}}}    per evaluation
//   {"summary":{"steps":200,"samples":6400,"step_ms":{"median":...,"min":...,"max":...},"samples_per_s":...,
//    "tokens_per_s":...,"tflop_per_s":...,"product_share":...,"product_tflop_per_s":[...],"exposed_communication":...,
//    "loss":...,"eval_loss":...,"best_eval_loss":...,"bubble":...,"peak_bytes":[...],"peak_by_kind":[...],"wall_s":...,
//    "in_flight_bytes":[...],"predicted":{"by":"measured costs","step_ms":...,"bubble":...,"in_flight_bytes":[...]}}}
//                                                                                        the last line
//
// "metrics" are those of train.metrics, "pictures" what belongs to a picture of one: the counts [target, prediction] of
// a confusion matrix, row by row; of one label the curve of roc_auc (rates of false alarms and hits) and pr_auc (recall
// and precision) as x, y, x, y, ...
//
// A model with several heads adds "losses":[...] to steps and evaluations: the loss of each head, before its weight;
// "loss" is their weighted sum.
//
// With servers (replicas.strategy: parameter_server) a step has no "bubble", but where all replicas update together,
// and "staleness":[...] counts its updates: [n] had n updates of others between what they read and themselves, on one
// server. A worker then has sent_bytes and received_bytes, and the summary
// "servers":{"count":...,"wait_share":...,"sent_bytes":...,"received_bytes":...,"staleness":[...]}, bytes by all
// workers in a mean step.
//
// Workers stand in row order. `bubble` of a step is the measured idle share: 1 - sum of compute / (workers * elapsed).
// tokens_per_s is there for sequences of tokens, tflop_per_s where layers count operations, product_share (that over
// the sum of the workers' product_tflop_per_s) where workers measured what they can do, exposed_communication
// (Prediction::exposed) after two steps or more of two workers or more.
//
// In the summary, step_ms, samples_per_s (all samples / all time; so are the other rates) and the median bubble leave
// out the first step written, which pays for warming up; what there is no value for is null. Numbers read back as the
// same doubles; JSON has no NaN, so what is not finite is the string "nan", "inf" or "-inf". `predicted` is what the
// plan said, with "peak_bytes":[...] instead of in-flight bytes and
// "layers":[{"layer":...,"step_ms":...,"measured_ms":...},...] with the "largest_miss" of them, "by": "plan"; without a
// plan it is the simulation with the costs that the workers measured (runs of two steps or more).
//
// peak_bytes: the most bytes of tensors that the worker has had alive since the job began; peak_by_kind: what they were
// for at that moment, so it adds up to peak_bytes. A tensor that was handed over in process counts once: a gradient
// with its receiver, a value with its sender. `activations` is all that lives within a step: activations, their
// gradients, workspaces, the batch.
//
// Every line is handed to the kernel before the call returns: a killed job keeps them all. Thread: one at a time.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/observe/pace.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// What was predicted for a run, beside what was measured.
struct LayerPrediction {
  std::string name;
  double step_ms = 0, measured_ms = 0;  ///< in one step: F, I and W of all micro-batches
};

/// What replicas cost a step.
struct ReplicaFigures {
  int count = 1;
  double wait_share = 0;      ///< of workers x step: waiting for gradients, weights and word of other replicas
  double reduce_share = 0;    ///< the same: adding up gradients
  std::vector<double> bytes;  ///< by row: gradients and weights that it sends to other memories in a step
  /// Bus bandwidth as nccl-tests define it: bytes that the worker with most sends, over the time that it waits for
  /// replicas and adds up. Empty: nothing leaves a memory.
  std::optional<double> bus_gb_per_s;
};

/// What a job with servers says of them.
struct ServerFigures {
  int replicas = 1, servers = 1;
  double wait_share = 0;                      ///< of workers x step: waiting for servers
  double sent_bytes = 0, received_bytes = 0;  ///< by all workers in a step, in the mean
  std::vector<std::int64_t> staleness = {};   ///< StepResult's, of all steps
};
/// In the mean, of counts by number; 0 of nothing.
double mean_of_counts(const std::vector<std::int64_t>& counts);

struct Prediction {
  bool planned = false;                              ///< by a plan; else simulated with the costs that workers measured
  double step_ms = 0, bubble = 0;                    ///< of steps that follow one another
  double measured_step_ms = 0, measured_bubble = 0;  ///< medians without the first step
  // Simulated:
  std::vector<double> in_flight_bytes, measured_in_flight_bytes;  ///< by row: WorkerReport::in_flight_bytes
  // Planned:
  std::vector<double> peak_bytes, measured_peak_bytes;  ///< by row: WorkerReport::peak_bytes
  std::vector<LayerPrediction> layers;
  /// The share of the measured step that is longer than the simulation with the costs that workers measured, in which
  /// messages are free: communication that compute does not hide is not more. Empty: one worker.
  std::optional<double> exposed;
  std::optional<ReplicaFigures> replicas;  ///< measured; where there are several

  const LayerPrediction* largest_miss() const;  ///< in milliseconds; null without layers
  /// By which the time of all layers is off, when it is by more than 10 % and they differ little in it.
  std::optional<double> common_factor() const;
};

/// 1 - sum of the workers' compute time / (workers * elapsed time), servers left out; NaN when nothing was timed, or
/// where steps overlap because their updates do.
double measured_bubble(const StepResult& result);

class MetricsWriter {
 public:
  /// Replaces the file, or, with `resume_after` >= 0, goes on with it: lines of later steps, of evaluations from that
  /// step on (they are made again) and summaries are taken out. Throws UserError when it cannot be written. The
  /// summary's wall clock starts here; it is of this job alone. `tokens_per_sample`: see Pace.
  explicit MetricsWriter(const std::string& path, std::int64_t resume_after = -1, std::int64_t tokens_per_sample = 0);

  /// Whether the file that is gone on with had an evaluation of that step, which has been taken out.
  bool took_out_evaluation(std::int64_t step) const { return taken_out_ == step; }

  // All throw Error when the disk takes no more.
  /// With norms a second line; `parameters`: their names.
  void step(const StepResult& result, const std::vector<std::string>& parameters = {});
  /// One evaluation of a set: heads and samples are sums over its batches. The first one, number 0, counts in the
  /// summary.
  void evaluation(const StepResult& result, const std::string& set = "");
  /// The last line; call once, when training ends.
  void summary(const std::optional<Prediction>& predicted = {}, const std::optional<ServerFigures>& servers = {});

 private:
  void write(const std::string& line);

  std::string path_;
  std::ofstream out_;
  double started_us_;
  std::optional<std::int64_t> taken_out_;  ///< the step that is gone on after, if it had an evaluation
  std::int64_t steps_ = 0, samples_ = 0;
  Pace timed_;                              ///< of step_ms_
  std::vector<double> product_rates_;       ///< by row: WorkerReport::product_rate
  std::vector<double> step_ms_, bubbles_;   ///< without the first step
  std::vector<std::int64_t> peak_bytes_;    ///< by row
  std::vector<MemoryByKind> peak_by_kind_;  ///< by row, of that peak
  std::optional<double> loss_, eval_loss_, best_eval_loss_;
};

/// From the metrics of a run: what is known of all its steps. Everything may be missing.
struct RunMetrics {
  std::vector<std::pair<std::int64_t, double>> losses, eval_losses;             ///< step, loss
  std::map<std::string, std::vector<std::pair<std::int64_t, double>>> metrics;  ///< of the first set: step, value
  std::map<std::string, std::vector<double>> pictures;                          ///< of its last evaluation
  std::vector<double> step_ms, bubbles;                                         ///< by training step
  std::vector<double> tflop_per_s, product_shares;  ///< the same; NaN where it says nothing of it
  std::vector<double> data_ms;                      ///< the same: the longest wait for data
  std::vector<double> peak_bytes;                   ///< by worker
  std::vector<std::int64_t> staleness;              ///< StepResult's, of all steps
};

/// Reads metrics.jsonl; an unfinished last line is left out. Throws UserError "`file`: ..." when a line is no metric.
RunMetrics metrics_from_lines(const std::string& text, const std::string& file);

}  // namespace lockstep
