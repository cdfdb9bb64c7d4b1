// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/training_run.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <set>

#include "runtime/training/batch_reader.hpp"
#include "runtime/training/checkpointing.hpp"
#include "runtime/training/device_kernels.hpp"
#include "runtime/training/placement.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

std::vector<Cpus> bound_cpus(const Assembly& assembly, int workers, const Log& log) {
  if (assembly.config.workers.bind == Bind::none) return {};
  const Cpus allowed = allowed_cpus();
  const int threads = assembly.config.workers.threads, before = assembly.ranks.workers_before;
  std::vector<Cpus> cpus = cpus_of_workers(allowed, before, workers, threads);
  if (cpus.empty())
    log.warn(concat("workers.bind: not bound: ", before + workers, " workers with ", threads,
                    " thread(s) each do not fit on the ", allowed.size(), " CPUs that this process may use"));
  for (std::size_t i = 0; i < cpus.size(); ++i)
    log.debug(concat("worker ", i, " of this process is bound to CPU ", join(cpus[i])));
  return cpus;
}

ShardOptions shards_of(const Assembly& assembly, int workers, const RunStart& start, const RunOptions& options) {
  const Config& config = assembly.config;
  ShardOptions shard;
  shard.checkpoints = options.checkpoints;
  shard.resume_from = start.checkpoint;
  shard.initial = start.initial;
  shard.averaged = start.averaged;
  shard.optimizer_restarts = start.optimizer_restarts;
  shard.background = config.checkpoint.background;
  // A copy counts like every tensor: under a limit that was set for training, auto makes none.
  if (shard.background == Background::automatic && config.workers.memory_limit > 0)
    shard.background = Background::never;
  shard.patience = patience_of(config.comm);
  shard.rows = assembly.saving_rows();
  shard.workers_here = workers;
  return shard;
}

}  // namespace

std::chrono::milliseconds patience_of(const CommConfig& comm) {
  return std::chrono::seconds(std::min(comm.watchdog_s, comm.save_s));
}

/// Those that no file gives; empty: all.
DrawnParameters drawn_parameters(const ModelGraph& graph, const RunStart& start) {
  if (start.checkpoint.empty() && !start.initial) return {};
  std::set<std::string> drawn;
  for (const ParameterInfo& parameter : graph.parameters)
    if (!(start.initial && start.initial->from.contains(parameter.name)) &&
        (start.checkpoint.empty() || parameter.is_base))
      drawn.insert(parameter.name);
  return [drawn](const std::string& name) { return drawn.contains(name); };
}

JobOutcome run_assembly(const Assembly& assembly, Decider& decider, Feeder& feeder, const RunStart& start,
                        const RunOptions& options) {
  const Config& config = assembly.config;
  at::set_num_threads(config.workers.threads);
  set_device_kernels(config.kernels, assembly.devices);
  const std::vector<RankId>& ranks = assembly.layout.rank_of_row;
  const int workers = static_cast<int>(std::count(ranks.begin(), ranks.end(), assembly.layout.here));
  JobSpec spec{assembly.graph, assembly.partition, assembly.losses, *assembly.programs, assembly.layout};
  spec.stage.seed = config.seed;
  spec.stage.dropout = config.kernels.dropout;
  spec.stage.precision = dtype_of(config.train.precision);
  spec.stage.check_finite = start.check_finite;
  spec.stage.recompute = assembly.recompute;
  spec.stage.recompute_attention = config.pipeline.recompute_attention;
  spec.stage.metrics = assembly.metrics;
  spec.draws = drawn_parameters(assembly.graph, start);
  spec.devices = assembly.devices;
  spec.threads = config.workers.threads;
  spec.cpus = bound_cpus(assembly, workers, options.log);
  spec.clip_grad_norm = config.train.clip_grad_norm;
  spec.central_storage = has_central_storage(assembly.config);
  if (start.trains) spec.make_updater = assembly.optimizer.maker(start.optimizer_after);
  spec.make_keeper = [shard = shards_of(assembly, workers, start, options), log = options.log,
                      first = static_cast<int>(assembly.deciding_row())](int row) {
    ShardOptions options_of_row = shard;
    options_of_row.row = row - first;
    options_of_row.log = log.named(concat("worker ", row));
    return std::make_unique<ShardKeeper>(options_of_row);
  };
  spec.wait_limit = std::chrono::seconds(config.comm.watchdog_s);
  spec.startup_limit = std::chrono::seconds(config.comm.startup_s);
  spec.save_limit = std::chrono::seconds(config.comm.save_s);
  spec.memory_limit = config.workers.memory_limit;
  spec.recorder_folder = options.recorder_folder;
  spec.decider = &decider;
  std::vector<std::unique_ptr<BatchReader>> further;
  const bool has_servers = assembly.partition.topology.servers > 0;  // whose first one reads for itself
  if (!has_servers) spec.feeders = {&feeder};
  for (int replica = has_servers ? 0 : 1; replica < assembly.partition.topology.replicas.count; ++replica)
    spec.feeders.push_back(further.emplace_back(std::make_unique<BatchReader>(assembly, replica)).get());
  spec.max_staleness = config.replicas.max_staleness;
  spec.steps_before = start.steps_before;
  spec.observer = options.observer;
  spec.signalled = options.signalled;
  spec.record_hashes = options.record_hashes;
  spec.measure_products = options.measure_products;
  spec.record = options.record;
  spec.dump_step = options.dump_step;
  spec.take_dump = options.take_dump;
  spec.remote = assembly.ranks.remote;
  spec.wrap_channel = options.wrap_channel;
  spec.log = options.log;
  return run_job(spec);
}

}  // namespace lockstep
