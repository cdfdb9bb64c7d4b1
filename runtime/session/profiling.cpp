// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/profiling.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "partitioner/profile_cache.hpp"
#include "runtime/host/machine.hpp"
#include "runtime/profile/layer_bench.hpp"
#include "runtime/profile/links.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/training/optimizer.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

/// Of speeds that are as good as equal: what ranks of one kind of machine differ by from one run to the next.
constexpr double kSpeedNoise = 0.05;

/// The value behind "key :" of a file of the kernel's; empty when there is none.
std::string kernel_says(const char* file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const auto colon = line.find(':');
    const auto begin = line.find_first_not_of(" \t", colon + 1);
    return colon == std::string::npos || begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

/// What measuring the largest layer may need: weights, gradients, their product, optimizer state, and activations, of
/// which nothing is known yet but what goes in and out.
double most_bytes_of_a_layer(const ModelGraph& graph, at::ScalarType precision) {
  constexpr double copies_of_weights = 5, copies_of_entries = 16;
  const std::vector<double> values = value_bytes(graph, precision);
  double most = 0;
  for (int layer = 0; layer < graph.layer_count(); ++layer) {
    const double bytes = 4 * copies_of_weights * static_cast<double>(graph.elements_of_layer(layer)) +
                         copies_of_entries * entry_bytes(graph, layer, values);
    most = std::max(most, bytes);
  }
  return most;
}

int workers_of(const Config& config) {
  return std::max(1, config.pipeline.workers());
}

/// As many as will train beside each other, but no more than there are cores and memory (`bytes`) for.
int workers_at_once(const Config& config, double most_bytes, int ranks, int neighbours, double bytes) {
  const int wanted = (workers_of(config) + ranks - 1) / ranks;
  const int cores = static_cast<int>(allowed_cpus().size()) / std::max(1, config.workers.threads) / neighbours;
  const double fit = bytes / std::max(1.0, most_bytes);
  return std::max(1, std::min({wanted, cores, static_cast<int>(std::min(fit, 1e6))}));
}

std::vector<int> hosts_of(Process& process) {
  std::vector<int> hosts;
  std::map<std::string, int> known;
  for (const std::string& name : process.all_gather(process.host()))
    hosts.push_back(known.emplace(name, static_cast<int>(known.size())).first->second);
  return hosts;
}

/// Ping-pong between two ranks, while the others wait for the answer.
LinkCost measure_between(Process& process, int first, int second) {
  std::string answer;
  if (process.rank() == first || process.rank() == second) {
    const RankId peer(process.rank() == first ? second : first);
    MemoryPool pool;
    const MemoryPool::Scope memory(pool, MemoryKind::slots);
    const std::unique_ptr<RemoteLinks> links = process.make_links(1);
    const auto out = links->sender(peer, 0, false), in = links->receiver(peer, 0, false, pool);
    const StopFlag never;
    const WaitLimits limits{&never};
    const bool begins = process.rank() == first;
    const LinkCost cost = measure_link(*out, *in, begins, limits);
    const double bytes_per_us = std::isfinite(cost.bytes_per_us) ? cost.bytes_per_us : 0.0;
    const double busy = measure_busy(
        *out, *in, begins, [&] { links->look(); }, cost, limits);
    answer = concat(cost.latency_us, " ", bytes_per_us, " ", busy);
  }
  std::istringstream text(process.all_gather(answer)[static_cast<std::size_t>(first)]);
  LinkCost cost;
  double bytes_per_us = 0;
  text >> cost.latency_us >> bytes_per_us >> cost.busy_us_per_byte;
  if (bytes_per_us > 0) cost.bytes_per_us = bytes_per_us;
  return cost;
}

void measure_links(Process& process, const std::vector<int>& hosts, Profile& profile) {
  std::string local;
  if (process.is_root()) local = std::to_string(measure_local_link().latency_us);
  profile.links = {{std::stod(process.all_gather(local).front())}, kAssumedSameHost, kAssumedOtherHost};
  profile.given_links = {"same_rank"};
  for (const bool same : {true, false}) {
    bool found = false;  // one pair speaks for its class
    for (int a = 0; a < process.size() && !found; ++a)
      for (int b = a + 1; b < process.size() && !found; ++b) {
        found = (hosts[a] == hosts[b]) == same;
        if (!found) continue;
        (same ? profile.links.same_host : profile.links.other_host) = measure_between(process, a, b);
        profile.given_links.emplace_back(same ? "same_host" : "other_host");
      }
  }
}

/// Every rank at the same time.
void measure_speeds(Process& process, const std::vector<int>& hosts, Profile& profile) {
  process.all_gather("");
  const std::vector<std::string> times = process.all_gather(std::to_string(measure_work_us()));
  const double first = std::stod(times.front());
  for (int rank = 0; rank < process.size(); ++rank) {
    double speed = first / std::stod(times[static_cast<std::size_t>(rank)]);
    if (std::abs(speed - 1) < kSpeedNoise) speed = 1;
    profile.workers.push_back({speed, {rank, hosts[static_cast<std::size_t>(rank)]}});
  }
}

}  // namespace

ProfileEnvironment profile_environment(const Config& config) {
  ProfileEnvironment environment = {{"cpu", kernel_says("/proc/cpuinfo", "model name")}};
  for (const auto& [key, value] : environment_of(config).entries)
    if (key == "isa" || key == "gemm" || key == "torch" || key == "threads" || key == "precision")
      environment.emplace_back(key, value);
  environment.emplace_back("optimizer", optimizer_cost_key(config.train));
  environment.emplace_back("dropout", name_of(config.kernels.dropout));
  return environment;
}

ModelGraph describe_for(const Trainer& trainer, std::int64_t rows) {
  const Config& config = trainer.config();
  return describe_model(trainer.model(), trainer.data().train->entries(rows), trainer.losses(),
                        {config.train.freeze, masters_of(config.train.precision), kBenchMicroBatches * rows});
}

Profile measure_profile(Process& process, const Config& config, const Trainer& trainer,
                        const ProfilingOptions& options) {
  const std::vector<int> hosts = hosts_of(process);
  const int neighbours =
      static_cast<int>(std::count(hosts.begin(), hosts.end(), hosts[static_cast<std::size_t>(process.rank())]));
  const ModelGraph& graph = trainer.graph();
  ProfileRequest request;
  request.model = config.name;
  request.describe = [&trainer](std::int64_t rows) { return describe_for(trainer, rows); };
  request.losses = trainer.losses();
  request.rows = options.rows;
  if (request.rows.empty())
    request.rows = rows_to_measure(config.train.batch, config.train.micro_batches, graph.least_rows);
  MeasureOptions& measure = request.measure;
  measure.stage.seed = config.seed;
  measure.stage.dropout = config.kernels.dropout;
  measure.stage.precision = dtype_of(config.train.precision);
  measure.stage.check_finite = config.train.stop_on_nan;
  measure.threads = config.workers.threads;
  measure.repeats = options.repeats;
  measure.most_seconds = options.most_seconds;
  measure.clip = config.train.clip_grad_norm > 0;
  measure.make_updater = trainer.assembly().optimizer.maker();
  // For this rank; `neighbours` ranks of this host measure at the same time.
  const double available = 0.8 * static_cast<double>(machine_memory().available_bytes) / neighbours;
  measure.workers = options.workers > 0 ? options.workers
                                        : workers_at_once(config, most_bytes_of_a_layer(graph, measure.stage.precision),
                                                          process.size(), neighbours, available);
  request.workers = workers_of(config);
  // With optimizer state and what runs, a group takes about three times what it touches.
  request.group_bytes = std::min(kCacheBytes, available / measure.workers / 6);
  request.environment = profile_environment(config);
  if (options.cache) request.cache = default_profile_cache();
  request.progress = options.progress;
  request.log = options.log;
  ProfileSharing sharing;
  sharing.rank = process.rank();
  sharing.ranks = process.size();
  sharing.all_gather = [&](const std::string& mine) { return process.all_gather(mine, kLongPatience); };
  Profile profile = profile_model(request, sharing);
  measure_links(process, hosts, profile);
  measure_speeds(process, hosts, profile);
  return profile;
}

Profile measure_profile(Process& process, const ConfigSource& source, const ProfilingOptions& options) {
  Config config;
  std::unique_ptr<Trainer> whole;
  process.together([&] {
    config = source.load(kMicroBatchesToMeasure).config;
    resolve_kernels(config);
    whole = make_whole(source, config);
  });
  return measure_profile(process, config, *whole, options);
}

}  // namespace lockstep
