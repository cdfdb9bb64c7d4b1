// SPDX-License-Identifier: Apache-2.0
//
// A job that is described and checked, and of which nothing is built: model, data and config brought together, cut into
// stages, placed on workers, with the programs that they will run. What a user can have got wrong is found on the way.
// A run reads it (run_assembly() in training_run.hpp); the same job in other cuts is another assembly over the same
// model and data.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/config/config.hpp"
#include "runtime/config/lr_schedule.hpp"
#include "runtime/data/sampler.hpp"
#include "runtime/engine/job.hpp"
#include "runtime/training/environment.hpp"
#include "runtime/training/losses.hpp"
#include "runtime/training/metric_kinds.hpp"
#include "runtime/training/optimizer.hpp"

namespace lockstep {

struct Costs;

/// The processes of the job (Process::ranks() in runtime/session/process.hpp). Default: this one alone.
struct Ranks {
  RankId here = RankId(0);
  int count = 1;
  RemoteLinks* remote = nullptr;
  int workers_before = 0;  ///< workers of lower ranks that may run on the same CPUs of the same host: for workers.bind
};

/// What config and model may name.
struct TrainTables {
  Table<LossKind> losses = loss_kinds();
  Table<MetricKind> metrics = metric_kinds();
  Table<OptimizerKind> optimizers = optimizer_kinds();
  Table<LrScheduleKind> lr_schedules = lr_schedule_kinds();
};

/// The order in which a training with this config draws the samples.
Sampler sampler_of(const Config& config, const DataSplits& data);

struct Assembly {
  Config config;
  Model model;
  DataSplits data;
  Ranks ranks;
  Losses losses;    ///< by head
  Metrics metrics;  ///< by head; of evaluations
  OptimizerChoice optimizer;
  LearningRate learning_rate;
  ModelGraph graph;
  Partition partition;
  Layout layout;
  std::vector<at::Device> devices;  ///< by row
  std::vector<bool> recompute;      ///< by layer
  std::shared_ptr<Programs> programs;
  std::int64_t answer_rows = 0;       ///< it answers inputs (with_answers()): samples of each micro-batch
  std::vector<std::string> warnings;  ///< what the user should know before it starts

  /// The first row, or the first server.
  std::size_t deciding_row() const {
    const int servers = partition.topology.servers;
    return servers > 0 ? layout.rank_of_row.size() - static_cast<std::size_t>(servers) : 0;
  }
  /// Whether this process has that row, which decides what comes next, reads the data for it and publishes checkpoints.
  bool feeds() const { return layout.rank_of_row[deciding_row()] == layout.here; }
  /// Rows that save: all, or the servers.
  int saving_rows() const { return static_cast<int>(layout.rank_of_row.size() - deciding_row()); }
  /// The order of the training samples.
  Sampler sampler() const { return sampler_of(config, data); }
  /// schedule: auto without costs: the programs are of equal costs, until with_costs() knows better.
  bool wants_costs() const {
    return config.pipeline.schedule == "auto" && !config.pipeline.costs.given && !config.replicas.has_servers();
  }
  /// The program of a training step with a full batch.
  const Program& training_program() const { return programs->get(Mode::train, config.train.micro_batches); }
};

/// Throws UserError (ConfigError, ModelError, DataError, ScheduleError).
Assembly assemble(Model model, DataSplits data, Config config, const Ranks& ranks = {}, const TrainTables& tables = {});

/// The same job in the cuts, the schedule and on the workers of `config`, which says the same of model, data and
/// training. Throws UserError.
Assembly assemble_again(const Assembly& assembly, Config config, const Ranks& ranks = {});

/// With the schedule that `auto` chooses for measured costs. `reason`: what was chosen, and why.
Assembly with_costs(Assembly assembly, const Costs& costs, std::string& reason);

/// On these devices, by row: also such as a config cannot name.
Assembly with_devices(Assembly assembly, std::vector<at::Device> devices);

/// The schedule of a full batch, of one replica.
Schedule schedule_of_replica(const Assembly& assembly);

/// What of an evaluation decides: its loss, or a metric by the name that it has in metrics.jsonl.
struct Watched {
  std::string name;
  bool more_is_better = false;
  /// Of an evaluation of all batches; less is better. NaN: it is not defined.
  double badness(const StepResult& evaluation) const;
};
/// Throws ConfigError at `key` of `section` when there is no such metric.
Watched watched_of(const Assembly& assembly, const std::string& name, const Section& section, const char* key);

/// Whether it can evaluate, every batch of the evaluation set: ConfigError, DataError, ModelError when not. A config
/// with eval_every has been checked.
void check_evaluation(const Assembly& assembly);

/// That of the config, and where the job computes: `devices`, the kinds of all workers' ("cpu + cuda"), and `card`,
/// what this process computes on ("NVIDIA H100 80GB HBM3"; "none" where that is a CPU).
Environment environment_of(const Assembly& assembly);

/// All that the ranks must agree on before they start, as text: config, what the bits depend on, the library itself,
/// cuts, layout and the training program.
std::string agreement(const Assembly& assembly);

}  // namespace lockstep
