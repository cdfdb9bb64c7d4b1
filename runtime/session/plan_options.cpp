// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/plan_options.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <set>

#include "runtime/base/size.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/session/worker_devices.hpp"
#include "runtime/training/placement.hpp"

namespace lockstep {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) words.push_back(word);
  return words;
}

namespace {

std::optional<int> whole_number(const std::string& text) {
  int number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

std::vector<int> numbers(const char* flag, const std::string& text, const std::string& expected) {
  std::vector<int> result;
  for (const std::string& word : split(text)) {
    result.push_back(whole_number(word).value_or(0));
    if (result.back() < 1) throw UserError(concat(flag, ": got ", text, ", expected ", expected));
  }
  return result;
}

std::vector<Recompute> recomputes_of(const PlanOptions& options, const Config& config) {
  const bool some_layers = !config.pipeline.recompute_layers.empty();
  std::vector<Recompute> result;
  for (const std::string& name : options.recomputes) {
    const std::optional<Recompute> recompute = find_enum<Recompute>(name);
    if (!recompute)
      throw UserError(concat("--recompute: got ", name, ", expected ", join(names<Recompute>()),
                             did_you_mean(name, names<Recompute>())));
    result.push_back(*recompute);
    if (some_layers && result.back() == Recompute::except_last)
      throw UserError(
          "--recompute: got except_last, but pipeline.recompute of the config is a list of layers: expected never or "
          "always, which is these layers");
  }
  if (result.empty() && some_layers) return {Recompute::never, Recompute::always};
  return result;
}

void check_schedules(const std::vector<std::string>& given) {
  for (const std::string& name : given)
    if (find_generator(name) == nullptr) throw UserError(concat("--schedule: ", no_such_schedule(name)));
}

namespace {

/// "a:4,b:4", or names alone, among which the workers are spread: the host of each worker.
std::vector<int> hosts_of(const PlanOptions& options) {
  constexpr const char* expected = "hosts with their numbers of workers, such as a:4,b:4";
  std::vector<int> hosts;
  std::set<std::string> names;
  for (const std::string& word : split(options.hosts)) {
    const std::size_t colon = word.find(':');
    const int count = colon == std::string::npos ? 0 : whole_number(word.substr(colon + 1)).value_or(0);
    if (count < 1 || count > kMostPlannedWorkers || colon == 0)
      throw UserError(concat("--hosts: got ", word, ", expected ", expected));
    if (!names.insert(word.substr(0, colon)).second)
      throw UserError(concat("--hosts: got ", word.substr(0, colon), " twice, expected ", expected));
    hosts.insert(hosts.end(), static_cast<std::size_t>(count), static_cast<int>(names.size()) - 1);
  }
  if (options.workers > 0 && options.workers != static_cast<int>(hosts.size()) && !hosts.empty())
    throw UserError(
        concat("--hosts: got ", hosts.size(), " workers in ", options.hosts, ", but --workers is ", options.workers));
  return hosts;
}

/// Bytes by worker.
std::vector<double> limits_of(const PlanOptions& options, const Config& config, std::size_t workers) {
  const double infinite = std::numeric_limits<double>::infinity();
  const auto in_config = static_cast<double>(config.workers.memory_limit);
  std::vector<double> limits;
  for (const std::string& word : split(options.memory)) {
    const std::optional<std::int64_t> size = parse_size(word);
    if (word != "none" && size.value_or(0) <= 0)
      throw UserError(concat("--memory: got ", word, ", expected ", size_rule(), ", or none"));
    limits.push_back(word == "none" ? infinite : static_cast<double>(*size));
  }
  if (limits.empty()) limits.push_back(in_config > 0 ? in_config : infinite);
  if (limits.size() == 1) limits.assign(workers, limits[0]);
  if (limits.size() != workers)
    throw UserError(
        concat("--memory: got ", limits.size(), " sizes, expected 1, or one for each of the ", workers, " workers"));
  return limits;
}

/// The rank of each worker.
std::vector<int> ranks_of(const PlanOptions& options, const std::vector<int>& hosts, std::size_t workers) {
  std::vector<int> ranks(workers);
  if (options.ranks == "per-worker" || (options.ranks.empty() && !hosts.empty())) {
    std::iota(ranks.begin(), ranks.end(), 0);
  } else if (options.ranks == "one" || options.ranks.empty()) {
    if (!hosts.empty()) ranks = hosts;
  } else {
    const int count = whole_number(options.ranks).value_or(0);
    if (count < 1 || count > static_cast<int>(workers))
      throw UserError(
          concat("--ranks: got ", options.ranks, ", expected one, per-worker, or a number from 1 to ", workers));
    const std::vector<RankId> spread = spread_workers(static_cast<int>(workers), count, {}, {});
    for (std::size_t i = 0; i < workers; ++i) ranks[i] = spread[i].value();
  }
  return ranks;
}

}  // namespace

std::vector<PlannedWorker> workers_of(const PlanOptions& options, const Config& config, const Profile& profile) {
  const std::vector<int> hosts = hosts_of(options);
  const std::size_t known = profile.workers.size();
  std::size_t count = options.workers > 0 ? static_cast<std::size_t>(options.workers) : hosts.size();
  if (count == 0 && known > 1) count = known;
  if (count == 0) throw UserError("--workers: missing, expected the number of workers to plan for, or --hosts a:4,b:4");
  const std::vector<double> limits = limits_of(options, config, count);
  std::vector<PlannedWorker> workers;
  const bool measured = known > 1 && known <= count;  // by rank
  std::vector<RankId> measured_on(count, RankId(0));
  if (measured) measured_on = spread_workers(static_cast<int>(count), static_cast<int>(known), {}, {});
  for (std::size_t i = 0; i < count; ++i) {
    const auto rank = static_cast<std::size_t>(measured_on[i].value());
    PlannedWorker& worker = workers.emplace_back(planned_worker(profile, config, static_cast<int>(i), rank));
    if (measured)
      worker.place.rank = profile.workers[rank].place.rank;
    else
      worker.speed = 1, worker.place.host = 0;
  }
  const bool placed = !hosts.empty() || !options.ranks.empty() || !measured;
  const std::vector<int> ranks = ranks_of(options, hosts, count);
  for (std::size_t i = 0; i < count; ++i) {
    workers[i].limit_bytes = limits[i];
    if (placed) workers[i].place.rank = ranks[i];
    if (placed && !hosts.empty()) workers[i].place.host = hosts[i];
  }
  return workers;
}

std::vector<int> micro_batches_of(const PlanOptions& options, bool automatic, const Config& config,
                                  const ModelGraph& graph, int workers) {
  constexpr int most_per_worker = 16;  // beyond, a bubble of 6 % is all that is left to win
  const std::int64_t batch = config.train.batch, most = batch / std::max<std::int64_t>(1, graph.least_rows);
  std::set<int> candidates;
  if (!automatic) {
    for (const int m : numbers("--micro-batches", options.micro_batches, "auto, or numbers >= 1 such as 4,8,16")) {
      if (m > most)
        throw UserError(concat("--micro-batches: got ", m, ", expected at most ", most, ": train.batch is ", batch,
                               graph.least_rows > 1 ? concat(", and a layer needs ", graph.least_rows, " rows") : ""));
      candidates.insert(m);
    }
    return {candidates.begin(), candidates.end()};
  }
  for (const std::int64_t first : {std::int64_t{1}, std::int64_t{workers}})
    for (std::int64_t m = first; m <= std::min<std::int64_t>(most, std::int64_t{workers} * most_per_worker); m *= 2)
      candidates.insert(static_cast<int>(m));
  const auto enough = candidates.lower_bound(workers);
  if (enough != candidates.end()) candidates.erase(candidates.begin(), enough);
  return {candidates.begin(), candidates.end()};
}

namespace {

/// Up to 8 all of them, beyond that powers of two.
std::vector<int> some_counts(int first, int last, int workers, bool all_workers) {
  constexpr int kEach = 8;
  std::vector<int> counts;
  for (int count = first; count <= last; ++count) {
    const bool power = (count & (count - 1)) == 0;
    if ((count <= kEach || power || count == last) && (!all_workers || workers % count == 0)) counts.push_back(count);
  }
  return counts;
}

}  // namespace

std::vector<int> replicas_of(const PlanOptions& options, const Config& config, int micro_batches, int workers) {
  const int most = std::min(workers, micro_batches);
  if (options.replicas == "auto") return some_counts(1, most, workers, options.all_workers);
  if (options.replicas.empty())
    return options.placement.empty()
               ? some_counts(1, std::min(most, config.gradient_groups()), workers, options.all_workers)
               : std::vector<int>{1};
  std::vector<int> counts = numbers("--replicas", options.replicas, "auto, or numbers >= 1 such as 1,2,4");
  for (const int count : counts)
    if (count > most)
      throw UserError(concat("--replicas: got ", count, ", expected at most ", most, ": there are ", workers,
                             " workers and ", micro_batches, " micro-batches"));
  std::sort(counts.begin(), counts.end());
  return counts;
}

std::vector<int> more_replicas(const PlanOptions& options, const Config& config, int micro_batches, int workers) {
  if (!options.replicas.empty() || !options.placement.empty()) return {};
  std::vector<int> counts =
      some_counts(config.gradient_groups() + 1, std::min(workers, micro_batches), workers, options.all_workers);
  std::erase_if(counts, [](int count) { return (count & (count - 1)) != 0; });
  return counts;
}

}  // namespace lockstep
