// SPDX-License-Identifier: Apache-2.0
//
// `lockstep plan`: cuts, schedule, stages per worker, recompute and placement for a measured model, under a limit of
// bytes per worker; a file that `lockstep train --plan` takes.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <list>
#include <numeric>

#include "runtime/base/output_file.hpp"
#include "runtime/engine/binding.hpp"
#include "runtime/training/schedule_choice.hpp"
#include "runtime/training/verify.hpp"
#include "tools/page.hpp"
#include "tools/plan_options.hpp"
#include "tools/planning.hpp"
#include "tools/profiling.hpp"
#include "tools/table.hpp"

namespace lockstep {
namespace {

/// All that was found for one number of micro-batches and one scope.
struct Searched {
  PlanProblem problem;
  PlanResult result;
};

struct Found {
  const Searched* searched = nullptr;
  const RankedPlan* plan = nullptr;
};

/// What may be chosen, once for each number of stages where the cutter has to know it.
std::vector<PlanScope> scopes_of(const PlanOptions& options, const Config& config, const Planning& planning,
                                 const PlanProblem& problem) {
  constexpr const char* flag = "--partition";
  PlanScope scope;
  scope.schedules = options.schedules;
  scope.virtual_stages = options.virtual_stages;
  scope.recomputes = recomputes_of(options, config);
  scope.placement = options.placement;
  scope.all_workers = options.all_workers;
  const std::string& text = options.partition;
  const int workers = static_cast<int>((scope.placement.empty() ? problem.workers.size() : scope.placement.size()));
  const int layers = problem.graph.layers();
  if (text.empty() || text == "auto" || text == "by:auto") return {scope};
  if (text.rfind("by:", 0) == 0) {
    const std::optional<CutBy> by = value_of<CutBy>(text.substr(3));
    if (!by)
      throw UserError(concat(flag, ": got ", text, ", expected by: with one of ", join(names<CutBy>()),
                             did_you_mean(text.substr(3), names<CutBy>())));
    std::vector<PlanScope> scopes;
    for (const int v : options.virtual_stages.empty() ? std::vector<int>{1, 2, 4} : options.virtual_stages) {
      if (workers * v > layers) continue;
      scopes.push_back(scope);
      scopes.back().virtual_stages = {v};
      scopes.back().layers_per_stage = planning.cut_by(*by, problem, workers * v);
    }
    if (scopes.empty())
      throw UserError(
          concat("--workers: got ", workers, ", the model has ", layers, " layers and every stage needs at least one"));
    return scopes;
  }
  scope.layers_per_stage = text.rfind("before:", 0) == 0
                               ? planning.cut_before(split(text.substr(7)), flag)
                               : numbers(flag, text, "layers per stage such as 3,3,2, by:time, or before:h.2,h.4");
  const int stages = static_cast<int>(scope.layers_per_stage.size());
  const int given = std::accumulate(scope.layers_per_stage.begin(), scope.layers_per_stage.end(), 0);
  if (given != layers) throw UserError(concat(flag, ": got ", given, " layers in ", text, ", the model has ", layers));
  if (stages % workers != 0)
    throw UserError(
        concat(flag, ": got ", stages, " stages in ", text, ", expected a multiple of the ", workers, " workers"));
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
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return is_better(*a.plan, *b.plan, a.searched->problem); });
  return found;
}

// ---- what is printed and written ----

std::string cut_to_width(const std::string& line) {
  const auto columns = static_cast<std::size_t>(columns_of_terminal(STDOUT_FILENO));
  return line.size() <= columns ? line : line.substr(0, columns - 2) + "..";
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
    line << "  " << std::left << std::setw(22) << schedule_text(plan.choice) << std::setw(12)
         << to_string(plan.choice.recompute);
    if (many) line << "M " << std::setw(5) << found[i].searched->problem.micro_batches;
    line << std::right << std::fixed << std::setprecision(2) << std::setw(10) << plan.simulated.period_us * 1e-3
         << " ms  " << why_it_lost(found[i], found[0]);
    std::cout << cut_to_width(line.str()) << "\n";
  }
  if (found.size() > most + 1) std::cout << "  and " << found.size() - most - 1 << " more\n";
}

void print_search(const std::list<Searched>& all) {
  long simulations = 0;
  bool exact = true, exact_workers = true;
  for (const Searched& searched : all) {
    simulations += searched.result.simulations;
    exact = exact && searched.result.exact;
    exact_workers = exact_workers && searched.result.exact_workers;
  }
  std::cout << "\n"
            << simulations << (simulations == 1 ? " plan was" : " plans were") << " simulated; "
            << (!exact ? "the search ended before all were tried: a better one is possible"
                : exact_workers
                    ? "none that was left out is faster"
                    : "none of as many workers that was left out is faster, and not every number of workers was tried")
            << "\n";
}

std::vector<std::string> warnings_of(const PlanOptions& options, const Config& config, const Profile& profile,
                                     const Planning& planning, int micro_batches, int workers) {
  std::vector<std::string> warnings;
  if (const std::string foreign = foreign_environment(profile, profile_environment(config)); !foreign.empty())
    warnings.push_back("the profile was made elsewhere: " + foreign);
  for (const std::string& doubt : planning.doubts(micro_batches)) warnings.push_back(doubt);
  const std::string shared = more_than_cores({{"", allowed_cpus(), workers}}, config.workers.threads);
  if (options.hosts.empty() && profile.workers.size() < 2 && !shared.empty())
    warnings.push_back(shared + ": they take turns, which no plan and no simulation knows of");
  return warnings;
}

/// What a timeline of the plan's program is of.
void describe(RunTimeline& timeline, const std::string& name, const PlanFile& file) {
  timeline.name = name;
  timeline.layers.clear();
  std::size_t layer = 0;
  for (const PredictedStage& stage : file.predicted->stages) {
    const std::string first = file.predicted->layers[layer].name;
    layer += static_cast<std::size_t>(stage.layers);
    timeline.layers.push_back(stage.layers == 1 ? first : first + " .. " + file.predicted->layers[layer - 1].name);
  }
  timeline.rank_of_worker.clear();
  timeline.limit_bytes.clear();
  timeline.planned_bytes = file.predicted->peak_bytes;
  for (std::size_t row = 0; row < timeline.planned_bytes.size(); ++row) {
    timeline.rank_of_worker.push_back(file.predicted->costs.places[row].rank);
    const auto worker = file.choice.placement.empty() ? row : static_cast<std::size_t>(file.choice.placement[row]);
    const double limit = file.workers[worker].limit_bytes;
    timeline.limit_bytes.push_back(std::isfinite(limit) ? limit : 0);
  }
}

void write_page(const std::string& path, const Config& config, const PlanFile& file, const Found& best) {
  const PlanChoice& choice = best.plan->choice;
  RunTimeline timeline = simulated_timeline(program_of(best.searched->problem, choice), file.predicted->costs, 1);
  describe(timeline, config.name, file);
  write_whole_file(path, html_page(timeline, {}));
  std::cout << "page written to " << path << "\n";
}

/// Costs that are the same for every size of micro-batch would always choose the fewest.
void check_rows_are_told(const Planning& planning, const PlanOptions& options, bool automatic) {
  const std::vector<std::string> untold = planning.rows_untold();
  if (untold.empty()) return;
  throw UserError(
      concat("--micro-batches: got ", automatic ? "auto" : options.micro_batches,
             ", expected one number: nothing says how the costs of ",
             untold.size() == 1 ? concat("layer '", untold.front(), "'")
                                : concat(untold.size(), " layers, the first is '", untold.front(), "',"),
             " depend on the rows of a micro-batch; where they were written, add rows: R, the size that they are for, "
             "and they "
             "grow with it; where they were measured at one size, measure at two: lockstep profile --rows A,B"));
}

void plan(const PlanOptions& options) {
  for (const auto& [flag, file] : {std::pair("-o", options.output), {"--html", options.html}})
    if (!file.empty()) check_writable(flag, file);
  check_schedules(options.schedules);
  const bool automatic =
      options.micro_batches == "auto" || (options.micro_batches.empty() && options.source.leaves_micro_batches());
  const Config config = options.source.load(/*micro_batches=*/1).config;
  resolve_kernels(config);
  const std::unique_ptr<Trainer> whole = make_trainer(one_worker(config), {});
  Profile profile = load_profile(options.profile);
  if (!options.costs.empty()) profile = overlaid(std::move(profile), load_profile(options.costs));
  const Planning planning(config, options.source.path, *whole, profile);
  const std::vector<PlannedWorker> workers = workers_of(options, config, profile);
  const int count = static_cast<int>(workers.size());
  if (options.all_workers && count > whole->graph().layer_count())
    throw UserError(concat("--workers: got ", count, ", the model has ", whole->graph().layer_count(),
                           " layers and every worker needs at least one"));
  std::vector<int> micro_batches = {config.train.micro_batches};
  if (automatic || !options.micro_batches.empty())
    micro_batches = micro_batches_of(options, automatic, config, whole->graph(), count);
  if (micro_batches.size() > 1) check_rows_are_told(planning, options, automatic);
  const std::list<Searched> all = search(options, config, planning, micro_batches, workers);
  const std::vector<Found> found = ranked(all);
  if (found.empty() || !found.front().plan->fits) {
    const Searched* closest = &all.front();
    for (const Searched& searched : all)
      if (searched.result.least_limit_bytes < closest->result.least_limit_bytes) closest = &searched;
    throw UserError(planning.nothing_fits(closest->problem, closest->result));
  }
  const Found& best = found.front();
  PlanFile file = planning.file(best.searched->problem, *best.plan);
  if (const std::optional<RankedPlan>& with_all = best.searched->result.with_all; with_all && with_all->fits)
    file.predicted->with_all_us = with_all->simulated.period_us;
  std::cout << config.name << ", " << file.layers << " layers: " << plan_table(file);
  print_runners_up(found, micro_batches.size() > 1);
  print_search(all);
  for (const std::string& warning :
       warnings_of(options, config, profile, planning, file.micro_batches, static_cast<int>(file.workers.size())))
    std::cout << "warning: " << warning << "\n";
  if (!options.html.empty()) write_page(options.html, config, file, best);
  if (options.output.empty()) return;
  write_whole_file(options.output, to_yaml(file));
  std::cout << "written to " << options.output << "; lockstep train " << options.source.path << " --plan "
            << options.output
            << (options.source.leaves_micro_batches() || file.micro_batches == config.train.micro_batches
                    ? ""
                    : concat(" --set train.micro_batches=", file.micro_batches))
            << "\n";
}

int plan_command(const PlanOptions& options) {
  Process process;
  try {
    process.together(
        [&] {
          if (process.is_root()) plan(options);
        },
        std::chrono::hours(24));
    return 0;
  } catch (const AlreadyReported&) {
    throw;
  } catch (const std::exception& error) {
    process.fail(error);
  }
}

}  // namespace

SimulateSubject subject_of_plan(const std::string& path) {
  ConfigSource source;
  source.plan = path;
  const PlanFile edited = read_plan(load_config_file(path));
  source.path = edited.config;
  source.overrides = {concat("train.micro_batches=", edited.micro_batches)};
  LoadedConfig loaded = source.load();
  resolve_kernels(loaded.config);
  const std::unique_ptr<Trainer> trainer = make_trainer(loaded.config, {});
  loaded.notes.clear();
  adopt_plan(*trainer, loaded);
  const PlanFile& file = *loaded.plan;
  if (!file.predicted)
    throw UserError(concat("--plan: ", join(loaded.notes, "; "), "; or draw it as if all stages took the same time: ",
                           "lockstep train ", source.path, " --plan ", path, " --dry-run"));
  SimulateSubject subject;
  subject.schedule = choose_schedule(loaded.config, trainer->partition()).schedule;
  subject.program = trainer->programs().get(Mode::train, trainer->micro_batches());
  subject.costs = file.predicted->costs;
  subject.note =
      concat("plan            ", path, " for ", loaded.config.name, "; lockstep train ", source.path, " --plan ", path);
  for (const std::string& note : loaded.notes) subject.note += "\n                " + note;
  subject.describe = [name = loaded.config.name, file](RunTimeline& timeline) { describe(timeline, name, file); };
  return subject;
}

void add_plan(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb = app.add_subcommand("plan", "Find cuts, schedule, recompute and placement for a measured model");
  auto options = std::make_shared<PlanOptions>();
  options->source.add_flags(*verb);
  verb->add_option("--profile", options->profile, "What the layers cost, of lockstep profile or by hand")
      ->required()
      ->type_name("FILE");
  verb->add_option("--costs", options->costs, "YAML with costs, links or workers that take the place of the profile's")
      ->type_name("FILE");
  verb->add_option("--workers", options->workers, "Workers that there are; fewer are used where that is better")
      ->check(CLI::Range(1, kMostPlannedWorkers));
  verb->add_flag("--all-workers", options->all_workers,
                 "Leave none of them idle, also where fewer are faster or need less");
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
  verb->add_option(
          "--partition", options->partition,
          "Fixes the cuts: layers per stage (3,3,2), first layers (before:h.2,h.4), or by:layers, params, time, "
          "memory or block")
      ->type_name("CUTS");
  verb->add_option("--schedule", options->schedules, "Schedules to choose from (lockstep list schedules)")
      ->delimiter(',')
      ->type_name("NAME[,NAME...]");
  verb->add_option("--virtual-stages", options->virtual_stages, "Stages per worker to choose from (default: 1,2,4)")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostPlannedWorkers))
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
      "Searches everything that no flag fixes: what the config's own pipeline says fixes nothing. Only where recompute "
      "is a\n"
      "list of layers there, no others are run again. Leaves with code 2, and writes nothing, when nothing fits.\n"
      "Examples:\n"
      "  lockstep profile configs/quickstart.yaml -o profile.json\n"
      "  lockstep plan configs/quickstart.yaml --profile profile.json --workers 2 -o plan.yaml\n"
      "  lockstep plan configs/gpt-10b.yaml --profile gpt-10b.json --hosts a:8,b:8 --memory 16GiB -o plan.yaml");
  verb->callback([options, &command] { command = [options] { return plan_command(*options); }; });
}

}  // namespace lockstep
