// SPDX-License-Identifier: Apache-2.0
//
// The whole job as typed values: what `lockstep train x.yaml` reads, and what a program fills in. Model and data keep
// their Sections: a model family or a reader reads its own keys (models/registry.hpp, runtime/data/dataset.hpp).
//
// Defaults stand here and nowhere else; those of YAML that depend on other keys, in the lists of keys (fields.hpp).
// What a key means and may be is said there, and in configs/reference.yaml, which is made of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/dropout_kernel.hpp"
#include "runtime/base/enums.hpp"
#include "runtime/config/section.hpp"
#include "runtime/schedule/recompute.hpp"

namespace lockstep {

// Each with its names in YAML.
enum class Precision { fp32, bf16, fp64 };
constexpr const char* to_string(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::bf16: return "bf16";
    case Precision::fp64: return "fp64";
  }
  return nullptr;
}

enum class OptimizerType { sgd, adam, adamw, rmsprop, adagrad, rowwise_adagrad, adafactor };
constexpr const char* to_string(OptimizerType type) {
  switch (type) {
    case OptimizerType::sgd: return "sgd";
    case OptimizerType::adam: return "adam";
    case OptimizerType::adamw: return "adamw";
    case OptimizerType::rmsprop: return "rmsprop";
    case OptimizerType::adagrad: return "adagrad";
    case OptimizerType::rowwise_adagrad: return "rowwise_adagrad";
    case OptimizerType::adafactor: return "adafactor";
  }
  return nullptr;
}

enum class LrScheduleType { constant, linear, cosine, step, wsd, one_cycle, plateau };
constexpr const char* to_string(LrScheduleType type) {
  switch (type) {
    case LrScheduleType::constant: return "constant";
    case LrScheduleType::linear: return "linear";
    case LrScheduleType::cosine: return "cosine";
    case LrScheduleType::step: return "step";
    case LrScheduleType::wsd: return "wsd";
    case LrScheduleType::one_cycle: return "one_cycle";
    case LrScheduleType::plateau: return "plateau";
  }
  return nullptr;
}

enum class CutBy { layers, params, time, memory, block, automatic };
constexpr const char* to_string(CutBy by) {
  switch (by) {
    case CutBy::layers: return "layers";
    case CutBy::params: return "params";
    case CutBy::time: return "time";
    case CutBy::memory: return "memory";
    case CutBy::block: return "block";
    case CutBy::automatic: return "auto";
  }
  return nullptr;
}

enum class Bind { none, cores };
constexpr const char* to_string(Bind bind) {
  switch (bind) {
    case Bind::none: return "none";
    case Bind::cores: return "cores";
  }
  return nullptr;
}

enum class ReplicaStrategy { mirrored, central_storage, parameter_server };
constexpr const char* to_string(ReplicaStrategy strategy) {
  switch (strategy) {
    case ReplicaStrategy::mirrored: return "mirrored";
    case ReplicaStrategy::central_storage: return "central_storage";
    case ReplicaStrategy::parameter_server: return "parameter_server";
  }
  return nullptr;
}

enum class ReplicaPlacement { pipeline_first, replicas_first };
constexpr const char* to_string(ReplicaPlacement placement) {
  switch (placement) {
    case ReplicaPlacement::pipeline_first: return "pipeline_first";
    case ReplicaPlacement::replicas_first: return "replicas_first";
  }
  return nullptr;
}

enum class GemmChoice { automatic, libtorch };
constexpr const char* to_string(GemmChoice gemm) {
  switch (gemm) {
    case GemmChoice::automatic: return "auto";
    case GemmChoice::libtorch: return "default";
  }
  return nullptr;
}

enum class Float32Matmul { exact, tf32 };
constexpr const char* to_string(Float32Matmul matmul) {
  switch (matmul) {
    case Float32Matmul::exact: return "exact";
    case Float32Matmul::tf32: return "tf32";
  }
  return nullptr;
}

/// What to do with weights of init_from that do not match the model's.
enum class Unmatched { refuse, allow };
constexpr const char* to_string(Unmatched unmatched) {
  switch (unmatched) {
    case Unmatched::refuse: return "refuse";
    case Unmatched::allow: return "allow";
  }
  return nullptr;
}

/// The names of what is watched, beside those of metrics.
inline constexpr const char* kNoBest = "none";
inline constexpr const char* kEvalLoss = "eval_loss";

enum class Background { automatic, always, never };
constexpr const char* to_string(Background background) {
  switch (background) {
    case Background::automatic: return "auto";
    case Background::always: return "always";
    case Background::never: return "never";
  }
  return nullptr;
}

/// What a model is for: the loss and the metrics that are meant where the config names none.
enum class Task { none, regression, binary, multiclass, multilabel, language_modelling, segmentation };
constexpr const char* to_string(Task task) {
  switch (task) {
    case Task::none: return "none";
    case Task::regression: return "regression";
    case Task::binary: return "binary";
    case Task::multiclass: return "multiclass";
    case Task::multilabel: return "multilabel";
    case Task::language_modelling: return "language_modelling";
    case Task::segmentation: return "segmentation";
  }
  return nullptr;
}

/// A type by its name, which a table has (a plug-in's, or ours), or nobody, which assemble() finds out.
struct PluginKind {
  std::string name;  ///< empty: none; beside an enum: it is one of ours
  Section keys;      ///< those of its own; whoever knows the type reads them (may hold `type` too)

  PluginKind() = default;
  PluginKind(const char* its_name) : name(its_name) {}
  PluginKind(std::string its_name, Section its_keys = {}) : name(std::move(its_name)), keys(std::move(its_keys)) {}
  bool operator==(const PluginKind& other) const;
};

struct OptimizerGroup {
  std::vector<std::string> match;      ///< parameter-name patterns (shell wildcards); the first group that matches wins
  double lr_scale = 1.0;               ///< multiplies the scheduled learning rate
  std::optional<double> weight_decay;  ///< none: the optimizer's (read_config fills it in)
  bool operator==(const OptimizerGroup&) const = default;
};

/// Where YAML leaves keys out they are what PyTorch has: other values than these for some types (fields.hpp).
struct OptimizerConfig {
  OptimizerType type = OptimizerType::adamw;
  PluginKind plugin;  ///< with a name: it counts instead of `type`
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;         ///< adam, adamw (YAML: betas: [b1, b2])
  double eps = 1e-8;                         ///< adam, adamw, rmsprop, adagrad
  double momentum = 0.0;                     ///< sgd, rmsprop
  bool nesterov = false;                     ///< sgd
  double dampening = 0.0;                    ///< sgd
  double alpha = 0.99;                       ///< rmsprop
  bool centered = false;                     ///< rmsprop
  double lr_decay = 0.0;                     ///< adagrad
  double initial_accumulator_value = 0.0;    ///< adagrad
  double beta2_decay = -0.8;                 ///< adafactor
  double eps1 = kFloatEpsilon, eps2 = 1e-3;  ///< adafactor (YAML: eps: [eps1, eps2])
  double d = 1.0;                            ///< adafactor
  double weight_decay = 0.0;
  bool decay_norms_and_biases = true;  ///< false: parameters with one dimension or none take no weight decay
  std::vector<OptimizerGroup> groups;

  std::string type_name() const { return plugin.name.empty() ? name_of(type) : plugin.name; }
  bool operator==(const OptimizerConfig&) const = default;

  static constexpr double kFloatEpsilon = 0x1p-23;
};

struct LrScheduleConfig {
  LrScheduleType type = LrScheduleType::constant;
  PluginKind plugin;  ///< with a name: it counts instead of `type`
  std::int64_t warmup_steps = 0;
  double min_lr = 0.0;            ///< linear, cosine, wsd: where the decay ends; plateau: the least
  std::int64_t decay_steps = 0;   ///< linear, cosine, wsd, one_cycle: the step of the end; 0: train.steps
  std::int64_t stable_steps = 0;  ///< wsd: steps at the base rate, after the warm-up
  double pct_start = 0.3;         ///< one_cycle: part of the steps in which the rate rises
  double div_factor = 25;         ///< one_cycle: base / start
  double final_div_factor = 1e4;  ///< one_cycle: start / end
  std::int64_t step_every = 0;    ///< step: steps between drops (required for type step)
  double step_factor = 0.1;       ///< step
  double factor = 0.1;            ///< plateau: each reduction multiplies the rate by it
  std::int64_t patience = 10;     ///< plateau: evaluations without progress that are let pass
  double threshold = 1e-4;        ///< plateau: the part of the best loss that counts as progress
  std::int64_t cooldown = 0;      ///< plateau: evaluations after a reduction that do not count

  std::string type_name() const { return plugin.name.empty() ? name_of(type) : plugin.name; }
  /// One of ours, which is not a plug-in's.
  bool is(LrScheduleType of) const { return plugin.name.empty() && type == of; }
  /// Has an end, at decay_steps.
  bool decays() const {
    using enum LrScheduleType;
    return is(linear) || is(cosine) || is(wsd) || is(one_cycle);
  }
  bool operator==(const LrScheduleConfig&) const = default;
};

/// An average of the weights that follows them: average = decay * average + (1 - decay) * weight after each step.
struct EmaConfig {
  bool given = false;
  double decay = 0.999;
  bool operator==(const EmaConfig&) const = default;
};

/// Training ends when evaluations make no progress any more.
struct EarlyStoppingConfig {
  bool given = false;
  std::string watch = kEvalLoss;  ///< or a metric
  std::int64_t patience = 3;      ///< evaluations without progress that are let pass
  double min_delta = 0.0;         ///< by how much more than that the best must be beaten
  bool operator==(const EarlyStoppingConfig&) const = default;
};

/// How the weights of init_from are matched with the model's, by name.
struct InitConfig {
  Unmatched missing =
      Unmatched::refuse;  ///< what the model has and they have not: allow: it starts with its own values
  Unmatched unknown = Unmatched::refuse;  ///< what they have and the model has not
  std::vector<std::string> fresh;         ///< parameter-name patterns that start with their own values in any case
  /// Name in the model -> name in the files; both may have one * for the same text. The first that matches counts.
  std::vector<std::pair<std::string, std::string>> rename;
  bool operator==(const InitConfig&) const = default;
};

struct TrainConfig {
  std::int64_t steps = 0;   ///< >= 1; 0: those of `epochs`, until the data is known
  std::int64_t epochs = 0;  ///< instead of steps: passes over the training set; 0: not given
  std::int64_t batch = 0;   ///< required: samples per optimizer step, over all replicas
  int micro_batches = 1;    ///< <= batch; over all replicas
  int gradient_groups = 0;  ///< 0: those of the checkpoint, or else replicas.count
  Task task = Task::none;
  PluginKind loss;                  ///< required without a task; runtime/training/losses.hpp has the names
  std::vector<PluginKind> metrics;  ///< of evaluations; runtime/training/metric_kinds.hpp has the names
  std::string activation;           ///< of what `predict` answers; empty: the loss's
  std::string init_from;  ///< weights to start with: a checkpoint, a folder of safetensors files or one; empty: none
  InitConfig init;
  Precision precision = Precision::fp32;
  double clip_grad_norm = 0.0;   ///< 0: no clipping
  bool post_validation = false;  ///< with clipping: update before the norm is known, and correct it afterwards
  OptimizerConfig optimizer;
  LrScheduleConfig lr_schedule;
  EmaConfig ema;
  EarlyStoppingConfig early_stopping;
  std::int64_t eval_every = 0;  ///< steps; 0: never
  std::int64_t eval_batch = 0;  ///< samples per evaluation step; 0: train.batch
  std::int64_t rows_of_evaluation() const { return eval_batch > 0 ? eval_batch : batch; }
  std::int64_t eval_steps = 0;      ///< batches per evaluation; 0: the whole evaluation set
  std::vector<std::string> freeze;  ///< parameter-name patterns that are not trained
  bool stop_on_nan = true;
  std::int64_t log_every = 1;
  std::int64_t norms_every = 0;  ///< steps; 0: never
  std::int64_t stop_after = 0;   ///< leave with a checkpoint after that many steps of this job; 0: do not
  bool operator==(const TrainConfig&) const = default;
};

struct PartitionConfig {
  CutBy by = CutBy::params;  ///< when neither counts nor cuts are given
  std::vector<int> counts;   ///< partition: [3, 3, 2] - layers per stage
  /// partition: {cut_before: [h.2, h.4]} - first layer of each stage but the first
  std::vector<std::string> cut_before;

  /// Whether the layers have to be measured first (time, memory, block, auto): resolve_partition() of runtime/session
  /// does that, and puts counts in its place before a Trainer is made.
  bool needs_profile() const;
  bool operator==(const PartitionConfig&) const = default;
};

/// Costs written by hand: for the simulation, and for schedule: auto. A list has a number per stage or per layer; one
/// number counts for every stage.
struct CostsConfig {
  bool given = false;
  std::vector<double> forward_ms = {1.0};
  std::vector<double> input_grad_ms;      ///< empty: as forward_ms
  std::vector<double> weight_grad_ms;     ///< empty: as forward_ms
  std::vector<double> activation_bytes;   ///< per micro-batch, from F to I or B; empty: 1 per stage
  std::vector<double> weight_grad_bytes;  ///< per micro-batch, what W needs, from I to W; empty: 0
  double message_bytes = 0.0;             ///< of every flow
  double latency_us = 0.0;
  double gigabytes_per_s = 0.0;  ///< 0: no limit
  bool operator==(const CostsConfig&) const = default;
};

struct PipelineConfig {
  int stages = 1;                  ///< all of them
  int virtual_stages = 1;          ///< stages per worker; a schedule file says it itself
  std::string schedule = "gpipe";  ///< a name of `lockstep list schedules`, auto, or file:PATH
  PartitionConfig partition;
  Recompute recompute = Recompute::never;
  std::vector<std::string> recompute_layers;  ///< with always: patterns (shell wildcards); empty: all layers
  bool recompute_attention = false;           ///< the weights of attention alone, where they would be kept
  std::int64_t in_flight_limit = 0;           ///< auto: most bytes of activations per worker; 0: none
  CostsConfig costs;
  /// placement[row] = worker: a permutation of 0..workers-1; empty: identity (read_config fills it in, where it knows
  /// the number of workers)
  std::vector<int> placement;

  /// PATH of schedule: file:PATH; else empty.
  std::string schedule_file() const;
  /// Of a schedule file: 0, the file says it.
  int workers() const { return virtual_stages < 1 || !schedule_file().empty() ? 0 : stages / virtual_stages; }
  bool operator==(const PipelineConfig&) const = default;
};

struct WorkersConfig {
  std::vector<int> per_rank;                   ///< empty: auto; one number: the same on every rank; else one per rank
  std::vector<std::string> devices = {"cpu"};  ///< worker w takes devices[w mod size]
  int threads = 1;                             ///< intra-op threads per worker: numerics, never derived
  Bind bind = Bind::none;                      ///< cores: each worker on `threads` CPUs of its own
  std::int64_t memory_limit = 0;               ///< bytes of tensors per worker; 0 (none): no limit
  int readers = 1;                             ///< threads that read data ahead, per process that reads; 0: none
  int read_ahead = 2;                          ///< mini-batches that they are ahead at most

  bool on_cpus_alone() const;
  bool operator==(const WorkersConfig&) const = default;
};

struct ReplicasConfig {
  int count = 1;  ///< copies of the pipeline
  ReplicaStrategy strategy = ReplicaStrategy::mirrored;
  bool shard_optimizer = false;  ///< mirrored: each memory updates its part of the weights
  ReplicaPlacement placement = ReplicaPlacement::pipeline_first;
  int servers = 1;        ///< parameter_server: so many have the weights, a part each
  int max_staleness = 4;  ///< parameter_server: updates of others that an update may not know of; 0: synchronous
  bool has_servers() const { return strategy == ReplicaStrategy::parameter_server; }
  /// Whether each update is one replica's share of a mini-batch, rather than a whole one.
  bool updates_by_shares() const { return has_servers() && max_staleness > 0; }
  bool operator==(const ReplicasConfig&) const = default;
};

struct KernelsConfig {
  GemmChoice gemm = GemmChoice::automatic;  ///< automatic lets MKL take its AVX-512 path on AMD CPUs
  DropoutKernel dropout = DropoutKernel::torch;
  bool deterministic = true;  ///< of devices, as is the next; the CPU's kernels are
  Float32Matmul float32_matmul = Float32Matmul::exact;
  bool operator==(const KernelsConfig&) const = default;
};

struct CheckpointConfig {
  std::string every = "never";  ///< a number of steps ("100") or minutes ("10min"), end (the last step only) or never
  int keep = 3;                 ///< so many are kept, beside the best one
  std::string best = kNoBest;   ///< eval_loss or a metric: also keeps the checkpoint with the best evaluation by it
  Background background = Background::automatic;  ///< write a copy while training goes on

  bool on() const { return every != "never"; }
  bool keeps_best() const { return best != kNoBest; }
  std::int64_t every_steps() const;    ///< 0: not by steps
  std::int64_t every_minutes() const;  ///< 0: not by time
  bool operator==(const CheckpointConfig&) const = default;
};

struct CommConfig {
  int watchdog_s = 300;  ///< a wait that lasts longer, for a worker that stands still, ends the job (exit code 4)
  int startup_s = 600;   ///< the same for a worker that has not begun: it loads
  int save_s = 3600;     ///< the same for one that saves a checkpoint: so long without a byte written
  bool device_buffers = false;  ///< ranks hand memory of devices to MPI
  bool operator==(const CommConfig&) const = default;
};

struct Config {
  std::string name;  ///< default: the file's stem
  std::uint64_t seed = 1;
  std::vector<std::string> plugins;  ///< shared libraries: what they add may be named
  Section model;                     ///< has `type`
  Section data;                      ///< has `type`
  TrainConfig train;
  PipelineConfig pipeline;
  WorkersConfig workers;
  ReplicasConfig replicas;
  KernelsConfig kernels;
  CheckpointConfig checkpoint;
  CommConfig comm;
  std::string run_dir;  ///< default: runs/<name>
  /// Those of train.gradient_groups, where they are given; else as many as there are replicas.
  int gradient_groups() const { return train.gradient_groups > 0 ? train.gradient_groups : replicas.count; }
  int all_workers() const { return pipeline.workers() * replicas.count; }  ///< of all replicas
  Section root;  ///< for errors that name a key, and for the resolved copy in the run folder
};

/// Types, defaults and every rule that needs no model, no data and no ranks. Throws ConfigError.
Config read_config(const Section& root);

/// The rules of read_config for a Config that was made or changed by a program; `model` and `data` are not looked at,
/// and a loss may be missing, for heads may name their own. Throws ConfigError "Config: train.batch: ...".
void check_config(const Config& config);

/// The whole config as YAML with every default filled in, in the order of configs/reference.yaml; `model` and `data` as
/// they were given. Reading it again gives the same Config. Keys that are not available yet, and those that the type of
/// an optimizer or learning-rate schedule does not use, are left out.
std::string resolved_yaml(const Config& config);

/// What decides the cost of an update, and the bytes that are kept for it: "rmsprop, centered, ema".
std::string optimizer_cost_key(const TrainConfig& train);

/// Whether another value of a key ("train.batch", "model.width") gives other bits, so that a checkpoint records it.
bool decides_bits(const std::string& key);
/// All keys that there are: "train.batch". Those of `model` and `data` belong to families and readers.
std::vector<std::string> config_keys();
/// The value with which a checkpoint was trained that is older than the key; none where every checkpoint records it.
std::optional<std::string> value_before(const std::string& key);

}  // namespace lockstep
