// SPDX-License-Identifier: Apache-2.0
//
// `lockstep plan`: cuts, schedule, stages per worker, recompute and placement for a measured model, under a limit of
// bytes per worker; a file that `lockstep train --plan` takes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <limits>
#include <list>
#include <numeric>
#include <set>

#include "runtime/config/size.hpp"
#include "runtime/engine/binding.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/training/verify.hpp"
#include "tools/page.hpp"
#include "tools/planning.hpp"
#include "tools/profiling.hpp"
#include "tools/run_folder.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kColumns = 100;
constexpr int kMostWorkers = 4096;

struct PlanOptions {
  ConfigSource source;
  std::string profile, costs, output, html;
  int workers = 0;
  std::string memory, hosts, ranks, micro_batches, partition;
  std::vector<std::string> schedules, recomputes;
  std::vector<int> virtual_stages, placement;
};

// ---- flags ----

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) words.push_back(word);
  return words;
}

std::optional<int> whole_number(const std::string& text) {
  int number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<int> numbers(const char* flag, const std::string& text, const std::string& expected) {
  std::vector<int> result;
  for (const std::string& word : split(text)) {
    result.push_back(whole_number(word).value_or(0));
    if (result.back() < 1) throw UserError(concat(flag, ": got ", text, ", expected ", expected));
  }
  return result;
}

std::vector<Recompute> recomputes_of(const PlanOptions& options, const Config& config) {
  const bool some_layers = config.pipeline.recompute == "layers";
  std::vector<Recompute> result;
  for (const std::string& name : options.recomputes) {
    const std::vector<std::string> names = {"never", "except_last", "always"};
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      throw UserError(concat("--recompute: got ", name, ", expected never, except_last or always", did_you_mean(name, names)));
    result.push_back(static_cast<Recompute>(found - names.begin()));
    if (some_layers && result.back() == Recompute::except_last)
      throw UserError("--recompute: got except_last, but pipeline.recompute of the config is a list of layers: expected never or "
                      "always, which is these layers");
  }
  if (result.empty() && some_layers) return {Recompute::never, Recompute::always};
  return result;
}

void check_schedules(const std::vector<std::string>& given) {
  std::vector<std::string> names;
  for (const ScheduleGenerator& generator : schedule_generators()) names.push_back(generator.name);
  for (const std::string& name : given)
    if (find_generator(name) == nullptr)
      throw UserError(concat("--schedule: there is no schedule '", name, "'; there are: ", join(names), did_you_mean(name, names)));
}

/// "a:4,b:4", or names alone, among which the workers are spread: the host of each worker.
std::vector<int> hosts_of(const PlanOptions& options) {
  constexpr const char* expected = "hosts with their numbers of workers, such as a:4,b:4";
  std::vector<int> hosts;
  std::set<std::string> names;
  for (const std::string& word : split(options.hosts)) {
    const std::size_t colon = word.find(':');
    const int count = colon == std::string::npos ? 0 : whole_number(word.substr(colon + 1)).value_or(0);
    if (count < 1 || count > kMostWorkers || colon == 0)
      throw UserError(concat("--hosts: got ", word, ", expected ", expected));
    if (!names.insert(word.substr(0, colon)).second)
      throw UserError(concat("--hosts: got ", word.substr(0, colon), " twice, expected ", expected));
    hosts.insert(hosts.end(), static_cast<std::size_t>(count), static_cast<int>(names.size()) - 1);
  }
  if (options.workers > 0 && options.workers != static_cast<int>(hosts.size()) && !hosts.empty())
    throw UserError(concat("--hosts: got ", hosts.size(), " workers in ", options.hosts, ", but --workers is ", options.workers));
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
    throw UserError(concat("--memory: got ", limits.size(), " sizes, expected 1, or one for each of the ", workers, " workers"));
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
      throw UserError(concat("--ranks: got ", options.ranks, ", expected one, per-worker, or a number from 1 to ", workers));
    const std::vector<RankId> spread = spread_workers(static_cast<int>(workers), count, {}, {});
    for (std::size_t i = 0; i < workers; ++i) ranks[i] = spread[i].value();
  }
  return ranks;
}

std::vector<PlannedWorker> workers_of(const PlanOptions& options, const Config& config, const Profile& profile) {
  const std::vector<int> hosts = hosts_of(options);
  const std::size_t known = profile.workers.size();
  std::size_t count = options.workers > 0 ? static_cast<std::size_t>(options.workers) : hosts.size();
  if (count == 0 && known > 1) count = known;
  if (count == 0) throw UserError("--workers: missing, expected the number of workers to plan for, or --hosts a:4,b:4");
  const std::vector<double> limits = limits_of(options, config, count);
  std::vector<PlannedWorker> workers(count);
  const bool measured = known > 1 && known <= count;  // by rank
  if (measured) {
    const std::vector<RankId> ranks = spread_workers(static_cast<int>(count), static_cast<int>(known), {}, {});
    for (std::size_t i = 0; i < count; ++i) {
      const ProfiledWorker& of_rank = profile.workers[static_cast<std::size_t>(ranks[i].value())];
      workers[i].speed = of_rank.speed;
      workers[i].place = of_rank.place;
    }
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

/// Numbers of micro-batches to look at; empty: the config's.
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

// ---- the search ----

/// All that was found for one number of micro-batches and one scope.
struct Searched {
  PlanProblem problem;
  PlanResult result;
};

struct Found {
  const Searched* searched = nullptr;
  const RankedPlan* plan = nullptr;
};

double most_bytes(const RankedPlan& plan) {
  const auto& bytes = plan.simulated.total_bytes;
  return bytes.empty() ? 0 : *std::max_element(bytes.begin(), bytes.end());
}

bool is_better(const Found& a, const Found& b) {
  const auto key = [](const Found& found) {
    const Simulation& s = found.plan->simulated;
    return std::tuple(!found.plan->fits, s.period_us, s.step_us, most_bytes(*found.plan));
  };
  return key(a) < key(b);
}

/// What may be chosen, once for each number of stages where the cutter has to know it.
std::vector<PlanScope> scopes_of(const PlanOptions& options, const Config& config, const Planning& planning,
                                 const PlanProblem& problem) {
  constexpr const char* flag = "--partition";
  PlanScope scope;
  scope.schedules = options.schedules;
  scope.virtual_stages = options.virtual_stages;
  scope.recomputes = recomputes_of(options, config);
  scope.placement = options.placement;
  const std::string& text = options.partition;
  const int workers = static_cast<int>(problem.workers.size()), layers = problem.graph.layers();
  if (text.empty() || text == "auto") return {scope};
  if (text.rfind("by:", 0) == 0) {
    const std::string by = text.substr(3);
    const std::vector<std::string> names = {"layers", "params", "time", "memory", "block"};
    if (std::find(names.begin(), names.end(), by) == names.end())
      throw UserError(concat(flag, ": got ", text, ", expected by: with one of ", join(names), did_you_mean(by, names)));
    std::vector<PlanScope> scopes;
    for (const int v : options.virtual_stages.empty() ? std::vector<int>{1, 2, 4} : options.virtual_stages) {
      if (workers * v > layers) continue;
      scopes.push_back(scope);
      scopes.back().virtual_stages = {v};
      scopes.back().layers_per_stage = planning.cut_by(by, problem, workers * v);
    }
    if (scopes.empty())
      throw UserError(concat("--workers: got ", workers, ", the model has ", layers, " layers and every stage needs at least one"));
    return scopes;
  }
  scope.layers_per_stage = text.rfind("before:", 0) == 0
                               ? planning.cut_before(split(text.substr(7)), flag)
                               : numbers(flag, text, "layers per stage such as 3,3,2, by:time, or before:h.2,h.4");
  const int stages = static_cast<int>(scope.layers_per_stage.size());
  const int given = std::accumulate(scope.layers_per_stage.begin(), scope.layers_per_stage.end(), 0);
  if (given != layers) throw UserError(concat(flag, ": got ", given, " layers in ", text, ", the model has ", layers));
  if (stages % workers != 0)
    throw UserError(concat(flag, ": got ", stages, " stages in ", text, ", expected a multiple of the ", workers, " workers"));
  scope.virtual_stages = {stages / workers};
  return {scope};
}

std::list<Searched> search(const PlanOptions& options, const Config& config, const Planning& planning,
                           const std::vector<int>& micro_batches, const std::vector<PlannedWorker>& workers) {
  std::list<Searched> all;
  std::optional<UserError> refused;
  for (const int m : micro_batches) {
    const PlanProblem problem = planning.problem(m, workers);
    for (const PlanScope& scope : scopes_of(options, config, planning, problem)) {
      try {
        all.push_back({problem, make_plan(problem, scope)});
      } catch (const UserError& error) {
        // Of several numbers of micro-batches or stages some may be impossible.
        if (!refused) refused = error;
      }
    }
  }
  if (all.empty() && refused) throw *refused;
  return all;
}

std::vector<Found> ranked(const std::list<Searched>& all) {
  std::vector<Found> found;
  for (const Searched& searched : all)
    for (const RankedPlan& plan : searched.result.ranked) found.push_back({&searched, &plan});
  std::stable_sort(found.begin(), found.end(), is_better);
  return found;
}

// ---- what is printed and written ----

std::string cut_to_width(const std::string& line) {
  return line.size() <= kColumns ? line : line.substr(0, kColumns - 2) + "..";
}

std::string percent(double share) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << share * 100 << " %";
  return out.str();
}

std::string why_it_lost(const Found& found, const Found& best) {
  if (!found.plan->fits || found.searched == best.searched) return found.plan->why;
  const Simulation &a = found.plan->simulated, &b = best.plan->simulated;
  return concat("step ", percent(b.period_us > 0 ? a.period_us / b.period_us - 1 : 0), " longer: bubble ",
                percent(a.bubble_steady), " against ", percent(b.bubble_steady));
}

void print_runners_up(const std::vector<Found>& found, bool many) {
  constexpr std::size_t most = 8;
  if (found.size() < 2) return;
  std::cout << "\nrunners-up:\n";
  for (std::size_t i = 1; i < std::min(found.size(), most + 1); ++i) {
    const RankedPlan& plan = *found[i].plan;
    std::ostringstream line;
    line << "  " << std::left << std::setw(20) << schedule_text(plan.choice) << std::setw(12)
         << to_string(plan.choice.recompute);
    if (many) line << "M " << std::setw(5) << found[i].searched->problem.micro_batches;
    line << std::right << std::fixed << std::setprecision(2) << std::setw(10) << plan.simulated.period_us * 1e-3 << " ms  "
         << why_it_lost(found[i], found[0]);
    std::cout << cut_to_width(line.str()) << "\n";
  }
  if (found.size() > most + 1) std::cout << "  and " << found.size() - most - 1 << " more\n";
}

void print_search(const std::list<Searched>& all) {
  long simulations = 0;
  bool exact = true;
  for (const Searched& searched : all) {
    simulations += searched.result.simulations;
    exact = exact && searched.result.exact;
  }
  std::cout << "\n" << simulations << (simulations == 1 ? " plan was" : " plans were") << " simulated; "
            << (exact ? "none that was left out is faster" : "the search ended before all were tried: a better one is possible")
            << "\n";
}

std::vector<std::string> warnings_of(const PlanOptions& options, const Config& config, const Profile& profile,
                                     const Planning& planning, int micro_batches, int workers) {
  std::vector<std::string> warnings;
  if (const std::string foreign = foreign_environment(profile, profile_environment(config)); !foreign.empty())
    warnings.push_back("the profile was made elsewhere: " + foreign);
  for (const std::string& doubt : planning.doubts(micro_batches)) warnings.push_back(doubt);
  const auto cores = static_cast<int>(allowed_cpus().size());
  if (options.hosts.empty() && profile.workers.size() < 2 && workers * config.workers.threads > cores)
    warnings.push_back(concat(workers, " workers of ", config.workers.threads, " thread(s) are more than the ", cores,
                              " cores here: they would share them, which no profile knows of"));
  return warnings;
}

void write_page(const std::string& path, const Config& config, const PlanFile& file, const Found& best) {
  const PlanChoice& choice = best.plan->choice;
  RunTimeline timeline = simulated_timeline(program_of(best.searched->problem, choice), file.predicted->costs, 1);
  timeline.name = config.name;
  std::size_t layer = 0;
  for (const PredictedStage& stage : file.predicted->stages) {
    const std::string first = file.predicted->layers[layer].name;
    layer += static_cast<std::size_t>(stage.layers);
    timeline.layers.push_back(stage.layers == 1 ? first : first + " .. " + file.predicted->layers[layer - 1].name);
  }
  timeline.rank_of_worker.clear();
  for (std::size_t row = 0; row < file.workers.size(); ++row)
    timeline.rank_of_worker.push_back(file.predicted->costs.places[row].rank);
  write_whole_file(path, html_page(timeline, {}));
  std::cout << "page written to " << path << "\n";
}

void plan(const PlanOptions& options) {
  for (const auto& [flag, file] : {std::pair("-o", options.output), {"--html", options.html}})
    if (!file.empty()) check_writable(flag, file);
  check_schedules(options.schedules);
  const Section train = load_config_file(options.source.path, options.source.overrides).section("train");
  const bool in_config = train.is_scalar("micro_batches") && train.get<std::string>("micro_batches") == "auto";
  const bool automatic = options.micro_batches == "auto" || (options.micro_batches.empty() && in_config);
  const bool chosen = automatic || !options.micro_batches.empty();
  ConfigSource source = options.source;
  if (chosen) source.overrides.emplace_back("train.micro_batches=1");
  const Config config = source.load().config;
  resolve_kernels(config);
  const std::unique_ptr<Trainer> whole = make_trainer(one_worker(config), {});
  Profile profile = load_profile(options.profile);
  if (!options.costs.empty()) profile = overlaid(std::move(profile), load_profile(options.costs));
  const Planning planning(config, options.source.path, *whole, profile);
  const std::vector<PlannedWorker> workers = workers_of(options, config, profile);
  const int count = static_cast<int>(workers.size());
  if (count > whole->graph().layer_count())
    throw UserError(concat("--workers: got ", count, ", the model has ", whole->graph().layer_count(),
                           " layers and every worker needs at least one"));
  std::vector<int> micro_batches = {config.train.micro_batches};
  if (chosen) micro_batches = micro_batches_of(options, automatic, config, whole->graph(), count);
  const std::list<Searched> all = search(options, config, planning, micro_batches, workers);
  const std::vector<Found> found = ranked(all);
  if (found.empty() || !found.front().plan->fits) {
    const Searched* closest = &all.front();
    for (const Searched& searched : all)
      if (searched.result.least_limit_bytes < closest->result.least_limit_bytes) closest = &searched;
    throw UserError(planning.nothing_fits(closest->problem, closest->result));
  }
  const Found& best = found.front();
  const PlanFile file = planning.file(best.searched->problem, *best.plan);
  std::cout << config.name << ", " << file.layers << " layers: " << plan_table(file);
  print_runners_up(found, micro_batches.size() > 1);
  print_search(all);
  for (const std::string& warning : warnings_of(options, config, profile, planning, file.micro_batches, count))
    std::cout << "warning: " << warning << "\n";
  if (!options.html.empty()) write_page(options.html, config, file, best);
  if (options.output.empty()) return;
  write_whole_file(options.output, to_yaml(file));
  std::cout << "written to " << options.output << "; lockstep train " << options.source.path << " --plan "
            << options.output << "\n";
}

int plan_command(const PlanOptions& options) {
  Process process;
  process.together([&] { if (process.is_root()) plan(options); }, std::chrono::hours(24));
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb = app.add_subcommand("plan", "Find cuts, schedule, recompute and placement for a measured model");
  auto options = std::make_shared<PlanOptions>();
  options->source.add_flags(*verb);
  verb->add_option("--profile", options->profile, "What the layers cost, of lockstep profile or by hand")
      ->required()
      ->type_name("FILE");
  verb->add_option("--costs", options->costs, "YAML with costs, links or workers that take the place of the profile's")
      ->type_name("FILE");
  verb->add_option("--workers", options->workers, "Workers to plan for")->check(CLI::Range(1, kMostWorkers));
  verb->add_option("--memory", options->memory,
                   "Most bytes of tensors on a worker, or on each (default: workers.memory_limit of the config)")
      ->type_name("SIZE[,SIZE...]");
  verb->add_option("--hosts", options->hosts, "Where the workers are: hosts and how many each has")
      ->type_name("NAME:N[,NAME:N...]");
  verb->add_option("--ranks", options->ranks,
                   "one: all workers of a host in one process; per-worker: a process each; or a number of processes. "
                   "Default: as the profile says, else one, with --hosts per-worker")
      ->type_name("one|per-worker|R");
  verb->add_option("--micro-batches", options->micro_batches,
                   "Numbers to choose from, or auto; part of the numerics (default: train.micro_batches)")
      ->type_name("auto|M[,M...]");
  verb->add_option("--partition", options->partition,
                   "Fixes the cuts: layers per stage (3,3,2), first layers (before:h.2,h.4), or by:layers, params, time, "
                   "memory or block")
      ->type_name("CUTS");
  verb->add_option("--schedule", options->schedules, "Schedules to choose from (lockstep list schedules)")
      ->delimiter(',')
      ->type_name("NAME[,NAME...]");
  verb->add_option("--virtual-stages", options->virtual_stages, "Stages per worker to choose from (default: 1,2,4)")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostWorkers))
      ->type_name("V[,V...]");
  verb->add_option("--recompute", options->recomputes, "never, except_last, always: those to choose from")
      ->delimiter(',')
      ->type_name("MODE[,MODE...]");
  verb->add_option("--placement", options->placement, "Fixes the worker of each row of the schedule, such as 1,0")
      ->delimiter(',')
      ->type_name("WORKER,...");
  verb->add_option("-o,--output", options->output, "The plan, YAML, for people too; left out: only printed")
      ->type_name("FILE");
  verb->add_option("--html", options->html, "Write a page with the timeline")->type_name("FILE");
  verb->footer(
      "Searches everything that no flag fixes: what the config's own pipeline says fixes nothing. Only where recompute is a\n"
      "list of layers there, no others are run again. Leaves with code 2, and writes nothing, when nothing fits.\n"
      "Examples:\n"
      "  lockstep profile configs/quickstart.yaml -o profile.json\n"
      "  lockstep plan configs/quickstart.yaml --profile profile.json --workers 2 -o plan.yaml\n"
      "  lockstep plan configs/gpt-10b.yaml --profile gpt-10b.json --hosts a:8,b:8 --memory 16GiB -o plan.yaml");
  verb->callback([options, &command] { command = [options] { return plan_command(*options); }; });
}

}  // namespace lockstep
