// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/profiling.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "partitioner/profile_cache.hpp"
#include "runtime/device/card.hpp"
#include "runtime/host/machine.hpp"
#include "runtime/profile/adding.hpp"
#include "runtime/profile/layer_bench.hpp"
#include "runtime/profile/links.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/worker_devices.hpp"
#include "runtime/training/device_kernels.hpp"
#include "runtime/training/optimizer.hpp"
#include "runtime/training/placement.hpp"
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

/// A kind of device that workers.devices names, and this rank's part in measuring it.
struct KindToMeasure {
  std::string kind;
  std::vector<int> ranks;          // that have it
  std::vector<std::string> names;  // of this rank's devices
  double memory_bytes = 0;         // of a device; 0: not known
};

/// What each rank has: [rank]: names and kinds, in the order of the config.
using DevicesByRank = std::vector<std::vector<std::pair<std::string, std::string>>>;

/// As a run sets them.
void set_kernels(const Config& config, const std::vector<std::pair<std::string, std::string>>& devices) {
  std::vector<at::Device> all;
  for (const auto& [name, kind] : devices) all.push_back(device_of(name, config.root.section("workers")));
  set_device_kernels(config.kernels, all);
}

/// A line for each device of this rank: name, bytes, kind. Throws ConfigError where there is none of that name.
std::string devices_text(const Config& config) {
  std::string text;
  for (const std::string& name : devices_of(config)) {
    const at::Device device = device_of(name, config.root.section("workers"));
    text += concat(name, " ", memory_bytes_of(device), " ", kind_of(device), "\n");
  }
  return text;
}

DevicesByRank devices_by_rank(const Process& process, const std::vector<std::string>& texts,
                              std::vector<KindToMeasure>& kinds) {
  DevicesByRank all;
  for (const std::string& text : texts) {
    const int rank = static_cast<int>(all.size());
    std::vector<std::pair<std::string, std::string>>& devices = all.emplace_back();
    std::istringstream lines(text);
    double bytes = 0;
    std::string kind;
    for (std::string name; lines >> name >> bytes && std::getline(lines >> std::ws, kind);) {
      devices.emplace_back(name, kind);
      auto known = std::find_if(kinds.begin(), kinds.end(), [&](const auto& entry) { return entry.kind == kind; });
      if (known == kinds.end()) known = kinds.insert(kinds.end(), KindToMeasure{kind, {}, {}, bytes});
      if (known->ranks.empty() || known->ranks.back() != rank) known->ranks.push_back(rank);
      if (rank == process.rank()) known->names.push_back(name);
    }
  }
  return all;
}

/// Workers of the config that compute on one device of the kind together; on the host all that are there.
int sharing_a_device(const Config& config, const KindToMeasure& kind) {
  int most = 0;
  for (const std::string& name : kind.names) {
    int workers = 0;
    for (int worker = 0; worker < workers_of(config); ++worker) workers += device_of_worker(config, worker) == name;
    most = std::max(most, workers);
  }
  return most;
}

/// As many as will train beside each other, but no more than there are cores and memory (`bytes`) for.
int workers_at_once(const Config& config, int sharing, double most_bytes, int ranks, int neighbours, double bytes) {
  const int wanted = (sharing + ranks - 1) / ranks;
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

/// What copies between the memories of this rank cost, a line each; its first device that is not the host speaks for
/// all. Empty: it has none.
std::string copies_text(const std::vector<std::pair<std::string, std::string>>& devices) {
  std::vector<at::Device> others;
  for (const auto& [name, kind] : devices)
    if (name != kHostDevice) others.push_back(device_of(name, {}));
  std::string text;
  const auto measure = [&](const char* link, at::Device from, at::Device to) {
    const LinkCost cost = measure_copy(from, to);
    text += concat(link, " ", cost.latency_us, " ", std::isfinite(cost.bytes_per_us) ? cost.bytes_per_us : 0.0, "\n");
  };
  if (others.empty()) return text;
  measure("to_device", at::kCPU, others[0]);
  measure("to_host", others[0], at::kCPU);
  if (others.size() > 1) measure("between_devices", others[0], others[1]);
  return text;
}

/// One rank speaks for all, and after the others: each would slow the others down.
void measure_copies(Process& process, const DevicesByRank& devices, Profile& profile) {
  profile.links.to_device = profile.links.to_host = profile.links.between_devices = kAssumedCopy;
  for (int rank = 0; rank < process.size(); ++rank) {
    std::string mine;
    if (rank == process.rank()) mine = copies_text(devices[static_cast<std::size_t>(rank)]);
    std::istringstream lines(process.all_gather(mine)[static_cast<std::size_t>(rank)]);
    LinkCost cost;
    double bytes_per_us = 0;
    for (std::string key; lines >> key >> cost.latency_us >> bytes_per_us;)
      for (const LinkClass& link : link_classes()) {
        const std::vector<std::string>& given = profile.given_links;
        if (key != link.key || std::find(given.begin(), given.end(), key) != given.end()) continue;
        cost.bytes_per_us = bytes_per_us > 0 ? bytes_per_us : LinkCost().bytes_per_us;
        profile.links.*link.member = cost;
        profile.given_links.push_back(key);
      }
  }
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

/// Of one kind of device, on all ranks that have it at the same time; the slowest speaks for all.
void measure_adding(Process& process, const KindToMeasure& kind, const MeasureOptions& options, Profile& profile) {
  const bool has_one = !kind.names.empty();
  process.all_gather("");
  double slowest = std::numeric_limits<double>::infinity();
  for (const std::string& rate : process.all_gather(
           has_one ? std::to_string(lockstep::measure_adding(options.stage.device, options.workers, options.threads))
                   : ""))
    if (!rate.empty()) slowest = std::min(slowest, std::stod(rate));
  profile.added_bytes_per_us[kind.kind] = slowest;
}

/// Every rank at the same time.
void measure_speeds(Process& process, const std::vector<int>& hosts, const DevicesByRank& devices, Profile& profile) {
  process.all_gather("");
  const std::vector<std::string> times = process.all_gather(std::to_string(measure_work_us()));
  const double first = std::stod(times.front());
  for (int rank = 0; rank < process.size(); ++rank) {
    double speed = first / std::stod(times[static_cast<std::size_t>(rank)]);
    if (std::abs(speed - 1) < kSpeedNoise) speed = 1;
    profile.workers.push_back({speed, {rank, hosts[static_cast<std::size_t>(rank)]}});
    for (const auto& device : devices[static_cast<std::size_t>(rank)])
      if (device.first != kHostDevice) profile.workers.back().devices.push_back(device);
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
  environment.emplace_back("recompute_attention", config.pipeline.recompute_attention ? "true" : "false");
  if (devices_of(config) == std::vector<std::string>{kHostDevice}) return environment;
  environment.emplace_back("deterministic", config.kernels.deterministic ? "true" : "false");
  environment.emplace_back("float32_matmul", to_string(config.kernels.float32_matmul));
  return environment;
}

ModelGraph describe_for(const Trainer& trainer, std::int64_t rows) {
  const Config& config = trainer.config();
  return describe_model(trainer.model(), trainer.data().train->entries(rows), trainer.losses(),
                        graph_options(config.train, kBenchMicroBatches * rows));
}

namespace {

/// For any kind of device.
ProfileRequest request_for(const Config& config, const Trainer& trainer, const ProfilingOptions& options) {
  ProfileRequest request;
  request.model = config.name;
  request.describe = [&trainer](std::int64_t rows) { return describe_for(trainer, rows); };
  request.read = [&trainer](std::int64_t rows) {
    const Dataset& data = *trainer.data().train;
    std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::int64_t>(i) % data.size();
    return data.read(samples);
  };
  request.losses = trainer.losses();
  request.rows = options.rows;
  if (request.rows.empty())
    request.rows = rows_to_measure(config.train.batch, config.train.micro_batches, trainer.graph().least_rows);
  MeasureOptions& measure = request.measure;
  measure.stage.seed = config.seed;
  measure.stage.dropout = config.kernels.dropout;
  measure.stage.recompute_attention = config.pipeline.recompute_attention;
  measure.stage.precision = dtype_of(config.train.precision);
  measure.stage.check_finite = config.train.stop_on_nan;
  measure.threads = config.workers.threads;
  measure.repeats = options.repeats;
  measure.most_seconds = options.most_seconds;
  measure.clip = config.train.clip_grad_norm > 0;
  measure.make_updater = trainer.assembly().optimizer.maker();
  request.workers = workers_of(config);
  request.environment = profile_environment(config);
  if (options.cache) request.cache = default_profile_cache();
  request.progress = options.progress;
  request.log = options.log;
  return request;
}

/// What this rank measures of one kind, if it has such a device.
void put_on(const KindToMeasure& kind, const Process& process, const std::vector<int>& hosts, const Config& config,
            int workers, const ModelGraph& graph, ProfileRequest& request) {
  // `neighbours` ranks of this host measure at the same time.
  const int here = hosts[static_cast<std::size_t>(process.rank())];
  const auto neighbours =
      std::count_if(kind.ranks.begin(), kind.ranks.end(), [&](int rank) { return hosts[rank] == here; });
  const double memory =
      kind.memory_bytes > 0 ? kind.memory_bytes : static_cast<double>(machine_memory().available_bytes);
  const double available = 0.8 * memory / static_cast<double>(neighbours);
  MeasureOptions& measure = request.measure;
  measure.stage.device = device_of(kind.names.front(), config.root.section("workers"));
  measure.workers = workers > 0 ? workers
                                : workers_at_once(config, sharing_a_device(config, kind),
                                                  most_bytes_of_a_layer(graph, measure.stage.precision), process.size(),
                                                  static_cast<int>(neighbours), available);
  // With optimizer state and what runs, a group takes about three times what it touches.
  request.group_bytes = std::min(kCacheBytes, available / measure.workers / 6);
}

/// The groups have to be the same on every rank, also on one that measures none of them.
double least_of(Process& process, double number) {
  for (const std::string& other : process.all_gather(std::to_string(number)))
    number = std::min(number, std::stod(other));
  return number;
}

}  // namespace

Profile measure_profile(Process& process, const Config& config, const Trainer& trainer,
                        const ProfilingOptions& options) {
  const std::vector<int> hosts = hosts_of(process);
  std::string mine;
  process.together([&] { mine = devices_text(config); });
  std::vector<KindToMeasure> kinds;
  const DevicesByRank devices = devices_by_rank(process, process.all_gather(mine), kinds);
  set_kernels(config, devices[static_cast<std::size_t>(process.rank())]);
  ProfileRequest request = request_for(config, trainer, options);
  ProfileSharing sharing;
  if (process.size() > 1)
    sharing.all_gather = [&](const std::string& text) { return process.all_gather(text, kLongPatience); };
  Profile profile;
  for (const KindToMeasure& kind : kinds) {
    request.kind = kind.kind;
    const auto self = std::find(kind.ranks.begin(), kind.ranks.end(), process.rank());
    sharing.rank = self == kind.ranks.end() ? -1 : static_cast<int>(self - kind.ranks.begin());
    sharing.ranks = static_cast<int>(kind.ranks.size());
    request.group_bytes = kCacheBytes;
    if (sharing.rank >= 0) put_on(kind, process, hosts, config, options.workers, trainer.graph(), request);
    if (process.size() > 1) request.group_bytes = least_of(process, request.group_bytes);
    Profile measured = profile_model(request, sharing);
    measured.layers.insert(measured.layers.begin(), profile.layers.begin(), profile.layers.end());
    measured.devices = std::move(profile.devices);
    if (kind.kind != kHostKind) measured.devices.push_back({kind.kind, kind.memory_bytes});
    measured.added_bytes_per_us = std::move(profile.added_bytes_per_us);
    measure_adding(process, kind, request.measure, measured);
    profile = std::move(measured);
  }
  measure_links(process, hosts, profile);
  if (!profile.devices.empty()) measure_copies(process, devices, profile);
  measure_speeds(process, hosts, devices, profile);
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
