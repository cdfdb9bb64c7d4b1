// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/plan_search.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "runtime/host/binding.hpp"
#include "runtime/session/auto_partition.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/plan_table.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/profiling.hpp"
#include "runtime/session/worker_devices.hpp"

namespace lockstep {
namespace {

/// What may be chosen of each replica, once for each number of stages where the cutter has to know it.
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
  const int workers = static_cast<int>(scope.placement.empty() ? problem.workers.size() : scope.placement.size()) /
                      problem.replicas.count;
  const int layers = problem.graph.layers();
  if (text.empty() || text == "auto" || text == "by:auto") return {scope};
  if (text.rfind("by:", 0) == 0) {
    const std::optional<CutBy> by = find_enum<CutBy>(text.substr(3));
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

/// The searches of one number of micro-batches and of replicas, behind the others. Throws what it was asked for and
/// cannot be, if nothing was found at all.
class Searches {
 public:
  Searches(const PlanOptions& options, const Config& config, const Planning& planning,
           const std::vector<PlannedWorker>& workers)
      : options_(options), config_(config), planning_(planning), workers_(workers) {}

  void add(int micro_batches, int replicas) {
    const int groups = std::max(config_.gradient_groups(), replicas);
    if (groups > micro_batches) return;
    const PlanProblem problem = planning_.problem({replicas, groups, micro_batches}, workers_);
    for (const PlanScope& scope : scopes_of(options_, config_, planning_, problem)) {
      try {
        all.push_back({problem, make_plan(problem, scope)});
      } catch (const UserError& error) {
        // Of several numbers of micro-batches, stages or replicas some may be impossible.
        if (!refused_) refused_ = error;
      }
    }
  }

  void check() const {
    if (all.empty() && refused_) throw *refused_;
  }

  std::list<Searched> all;

 private:
  const PlanOptions& options_;
  const Config& config_;
  const Planning& planning_;
  const std::vector<PlannedWorker>& workers_;
  std::optional<UserError> refused_;
};

std::vector<FoundPlan> ranked(const std::list<Searched>& all) {
  std::vector<FoundPlan> found;
  for (const Searched& searched : all)
    for (const RankedPlan& plan : searched.result.ranked) found.push_back({&searched, &plan});
  std::stable_sort(found.begin(), found.end(), [](const FoundPlan& a, const FoundPlan& b) {
    return is_better(*a.plan, *b.plan, a.searched->problem);
  });
  return found;
}

std::vector<FoundPlan> best_by_replicas(const std::list<Searched>& all) {
  std::map<int, FoundPlan> best;
  for (const Searched& searched : all) {
    if (!searched.result.fits()) continue;
    FoundPlan& of_count = best[searched.problem.replicas.count];
    const RankedPlan& plan = searched.result.best();
    if (of_count.plan == nullptr || is_better(plan, *of_count.plan, searched.problem)) of_count = {&searched, &plan};
  }
  std::vector<FoundPlan> list;
  for (const auto& [count, plan] : best) list.push_back(plan);
  return list;
}

std::vector<std::string> warnings_of(const PlanOptions& options, const Config& config, const Profile& profile,
                                     const Planning& planning, const PlanFile& best) {
  std::vector<std::string> warnings;
  ProfileEnvironment here = profile_environment(config);
  for (const auto& device : devices_here(config)) here.push_back(device);
  if (const std::string foreign = foreign_environment(profile, here); !foreign.empty())
    warnings.push_back("the profile was made elsewhere: " + foreign);
  for (const std::string& doubt : planning.doubts(best.micro_batches)) warnings.push_back(doubt);
  const std::string shared =
      more_than_cores({{"", allowed_cpus(), static_cast<int>(best.workers.size())}}, config.workers.threads);
  if (options.hosts.empty() && profile.workers.size() < 2 && !shared.empty())
    warnings.push_back(shared + ": they take turns, which no plan and no simulation knows of");
  return warnings;
}

/// What a timeline of the plan's program is of.
void describe(RunTimeline& timeline, const std::string& name, const PlanFile& file) {
  timeline.name = name;
  timeline.layers.clear();
  const std::vector<PredictedLayer>& layers = file.predicted->layers;
  for (std::size_t s = 0; s < file.predicted->stages.size(); ++s) {
    const std::size_t first = file.predicted->first_layer(s);
    const auto count = static_cast<std::size_t>(file.predicted->stages[s].layers);
    timeline.layers.push_back(count == 1 ? layers[first].name
                                         : concat(layers[first].name, " .. ", layers[first + count - 1].name));
  }
  timeline.rank_of_worker.clear();
  timeline.device_of_worker.clear();
  timeline.limit_bytes.clear();
  timeline.planned_bytes = file.predicted->peak_bytes;
  for (std::size_t row = 0; row < timeline.planned_bytes.size(); ++row) {
    const WorkerPlace& place = file.predicted->costs.places[row];
    timeline.rank_of_worker.push_back(place.rank);
    if (uses_devices(file.workers)) timeline.device_of_worker.push_back(place.device);
    const double limit = file.workers[file.choice.worker_of(row)].limit_bytes;
    timeline.limit_bytes.push_back(std::isfinite(limit) ? limit : 0);
  }
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

}  // namespace

PlanSearch find_plan(const ConfigSource& source, const Profile& profile, const PlanOptions& options) {
  check_schedules(options.schedules);
  const bool automatic =
      options.micro_batches == "auto" || (options.micro_batches.empty() && source.leaves_micro_batches());
  const Config config = source.load(/*micro_batches=*/1).config;
  resolve_kernels(config);
  const std::unique_ptr<Trainer> whole = make_whole(source, config);
  std::vector<PlannedWorker> workers = workers_of(options, config, profile);
  const std::string limits = limit_by_devices(workers, profile);
  const Planning planning(config, source.path, *whole, profile, workers);
  const int count = static_cast<int>(workers.size());
  if (options.all_workers && count > whole->graph().layer_count())
    throw UserError(concat("--workers: got ", count, ", the model has ", whole->graph().layer_count(),
                           " layers and every worker needs at least one"));
  std::vector<int> micro_batches = {config.train.micro_batches};
  if (automatic || !options.micro_batches.empty())
    micro_batches = micro_batches_of(options, automatic, config, whole->graph(), count);
  if (micro_batches.size() > 1) check_rows_are_told(planning, options, automatic);
  Searches searches(options, config, planning, workers);
  for (const int m : micro_batches)
    for (const int replicas : replicas_of(options, config, m, count)) searches.add(m, replicas);
  searches.check();
  PlanSearch found;
  found.all = std::move(searches.all);
  found.ranked = ranked(found.all);
  if (found.ranked.empty() || !found.ranked.front().plan->fits) {
    const Searched* closest = &found.all.front();
    for (const Searched& searched : found.all)
      if (searched.result.least_limit_bytes < closest->result.least_limit_bytes) closest = &searched;
    throw UserError(planning.nothing_fits(closest->problem, closest->result));
  }
  const FoundPlan best = found.ranked.front();
  const int best_micro_batches = best.searched->problem.replicas.micro_batches;
  for (const int replicas : more_replicas(options, config, best_micro_batches, count))
    searches.add(best_micro_batches, replicas);
  found.all.splice(found.all.end(), searches.all);
  found.by_replicas = best_by_replicas(found.all);
  found.best = planning.file(best.searched->problem, *best.plan);
  if (const std::optional<RankedPlan>& with_all = best.searched->result.with_all; with_all && with_all->fits)
    found.best.predicted->with_all_us = with_all->simulated.period_us;
  found.sets_micro_batches = !source.leaves_micro_batches() && found.best.micro_batches != config.train.micro_batches;
  found.sets_groups = found.best.gradient_groups != config.gradient_groups();
  found.warnings = warnings_of(options, config, profile, planning, found.best);
  if (!limits.empty()) found.warnings.push_back(limits);
  found.sets_devices = devices_to_set(config, found.best.workers);
  return found;
}

std::string take_plan(Process& process, ConfigSource& source, const Profile& profile, const PlanOptions& options) {
  std::string text, table;
  process.together(
      [&] {
        if (source.config)
          throw UserError(
              "a plan is laid over a config file; a config that the program fills in takes cuts and "
              "schedule from find_plan() itself");
        if (!process.is_root()) return;
        const PlanFile best = find_plan(source, profile, options).best;
        text = to_yaml(best);
        table = plan_table(best);
      },
      kLongPatience);
  source.plan.clear();
  source.plan_text = process.all_gather(text, kLongPatience).front();
  return process.all_gather(table).front();
}

RunTimeline simulated_timeline(const PlanSearch& search, const std::string& name) {
  const FoundPlan& best = search.ranked.front();
  RunTimeline timeline =
      simulated_timeline(program_of(best.searched->problem, best.plan->choice), search.best.predicted->costs, 1);
  describe(timeline, name, search.best);
  return timeline;
}

SimulateSubject subject_of_plan(const std::string& path) {
  ConfigSource source;
  source.plan = path;
  const PlanFile edited = read_plan(load_config_file(path));
  source.path = edited.config;
  source.overrides = {concat("train.micro_batches=", edited.micro_batches)};
  LoadedConfig loaded = source.load();
  resolve_kernels(loaded.config);
  const std::unique_ptr<Trainer> trainer = make_trainer(source, loaded.config, {});
  loaded.notes.clear();
  adopt_plan(*trainer, loaded);
  const PlanFile& file = *loaded.plan;
  if (!file.predicted)
    throw UserError(concat("--plan: ", join(loaded.notes, "; "), "; or draw it as if all stages took the same time: ",
                           "lockstep train ", source.path, " --plan ", path, " --dry-run"));
  SimulateSubject subject;
  subject.program = trainer->programs().get(Mode::train, trainer->micro_batches());
  subject.schedule = schedule_of(subject.program);
  subject.costs = file.predicted->costs;
  subject.note =
      concat("plan            ", path, " for ", loaded.config.name, "; lockstep train ", source.path, " --plan ", path);
  for (const std::string& note : loaded.notes) subject.note += "\n                " + note;
  subject.describe = [name = loaded.config.name, file](RunTimeline& timeline) { describe(timeline, name, file); };
  return subject;
}

}  // namespace lockstep
