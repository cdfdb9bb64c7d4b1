// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/auto_partition.hpp"

#include <algorithm>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/profiling.hpp"
#include "runtime/session/worker_devices.hpp"
#include "runtime/training/placement.hpp"
#include "runtime/training/schedule_choice.hpp"

namespace lockstep {
namespace {

/// Of the time of a step.
constexpr double kWorthItToSay = 0.98;

/// Whether fewer replicas of the same pipeline would be faster; empty: they would not.
std::string fewer_replicas(const PlanProblem& problem, const PlanChoice& choice, double step_us) {
  if (find_generator(choice.schedule) == nullptr) return "";
  const auto rows = choice.placement.size() / static_cast<std::size_t>(problem.replicas.count);
  int fastest = 0;
  double least_us = kWorthItToSay * step_us;
  for (int count = 1; count < problem.replicas.count; ++count) {
    PlanProblem fewer = problem;
    Replicas replicas = problem.replicas;
    replicas.count = count;
    set_replicas(fewer, replicas);
    RankedPlan plan;
    plan.choice = choice;
    plan.choice.placement.resize(rows * static_cast<std::size_t>(count));
    try {
      plan.simulated = judge(fewer, plan.choice);
    } catch (const ScheduleError&) {
      continue;  // it forbids the shape
    }
    if (plan.simulated.period_us > least_us || largest_excess(fewer, plan).row >= 0) continue;
    fastest = count;
    least_us = plan.simulated.period_us;
  }
  if (fastest == 0) return "";
  return concat("fewer replicas would be faster: ", fastest, " of ", problem.replicas.count, ", ", time_text(least_us),
                " a step instead of ", time_text(step_us), "; set replicas.count=", fastest,
                problem.replicas.groups > fastest
                    ? concat(" and train.gradient_groups=", problem.replicas.groups, ", which changes no bit")
                    : std::string());
}

/// The cuts for all of the config's workers. `note`: whether fewer would be faster.
PlanFile plan_cuts(const Config& config, const Planning& planning, const PlanProblem& problem, std::string& note) {
  const PipelineConfig& pipeline = config.pipeline;
  const Section section = config.root.section("pipeline");
  PlanScope scope;
  if (pipeline.schedule != "auto") scope.schedules = {pipeline.schedule};
  scope.virtual_stages = {pipeline.virtual_stages};
  scope.recomputes = {pipeline.recompute};
  scope.placement = pipeline.placement;
  scope.all_workers = true;  // the config has said how many stages there are
  if (pipeline.partition.by != CutBy::automatic)
    scope.layers_per_stage = planning.cut_by(pipeline.partition.by, problem, pipeline.stages);
  const PlanResult result = make_plan(problem, scope);
  if (!result.fits())
    throw section.error("partition",
                        concat(planning.nothing_fits(problem, result),
                               "; raise workers.memory_limit, use more stages, or pipeline.recompute: always"));
  const bool in_order = std::is_sorted(scope.placement.begin(), scope.placement.end());
  if (in_order && scope.layers_per_stage.empty()) {
    scope.all_workers = false;
    scope.placement.clear();
    const PlanResult any = make_plan(problem, scope);
    const bool fewer_workers =
        any.fits() && rows_of(problem, any.best().choice) < static_cast<int>(problem.workers.size());
    if (fewer_workers && any.best().simulated.period_us <= kWorthItToSay * result.best().simulated.period_us) {
      const PlanFile fewer = planning.file(problem, any.best());
      const std::string devices = devices_to_set(config, fewer.workers);
      note = concat("fewer workers would be faster: ", fewer.workers.size(), " of ", problem.workers.size(), ", ",
                    time_text(fewer.predicted->step_us),
                    " a step; set pipeline.stages=", fewer.choice.layers_per_stage.size(),
                    devices.empty() ? "" : " and workers.devices=" + devices);
    }
  }
  if (note.empty()) note = fewer_replicas(problem, result.best().choice, result.best().simulated.period_us);
  return planning.file(problem, result.best());
}

/// What can be known to be wrong before anything is measured.
void check_pipeline(const Config& config, const ModelGraph& graph) {
  const PipelineConfig& pipeline = config.pipeline;
  const Section section = config.root.section("pipeline");
  if (!pipeline.schedule_file().empty())
    throw section.error(
        "partition", concat("got ", to_string(pipeline.partition.by), " with a schedule from a file, expected layers, ",
                            "params, counts or cut_before; only generated schedules can be planned for"));
  if (pipeline.stages > graph.layer_count())
    throw section.error("stages",
                        concat("got ", pipeline.stages, ", the model has ", graph.layer_count(),
                               " layers and every stage needs at least one; use at most ", graph.layer_count()));
  if (pipeline.schedule == "auto") return;
  check_schedule_name(config);
  try {
    make_schedule(pipeline.schedule,
                  {pipeline.workers(), pipeline.virtual_stages, replicas_of(config).most_micro_batches()});
  } catch (const ScheduleError& error) {
    throw section.error("schedule", error.what());
  }
}

}  // namespace

void resolve_partition(Process& process, const ConfigSource& source, LoadedConfig& loaded) {
  Config& config = loaded.config;
  const std::string by = to_string(config.pipeline.partition.by);
  if (!config.pipeline.partition.needs_profile()) return;
  std::unique_ptr<Trainer> whole;
  std::vector<RankId> rank_of_worker;
  process.together([&] {
    whole = make_whole(source, config, loaded.trained);
    check_pipeline(config, whole->graph());
    rank_of_worker =
        spread_workers(config.all_workers(), process.size(), config.workers.per_rank, config.root.section("workers"));
  });
  const Log log = process.log();
  if (process.is_root())
    log.info(concat("partition ", by, ": measuring ", whole->graph().layer_count(),
                    " layers (what is in the cache is not measured again)"));
  ProfilingOptions options;
  options.log = log;
  const Profile profile = measure_profile(process, config, *whole, options);
  std::string text, fewer, limits;
  process.together(
      [&] {
        if (!process.is_root()) return;
        std::vector<PlannedWorker> workers = workers_on_ranks(profile, rank_of_worker, config);
        limits = limit_by_devices(workers, profile);
        const Planning planning(config, source.path, *whole, profile, workers);
        text = to_yaml(plan_cuts(config, planning, planning.problem(replicas_of(config), workers), fewer));
      },
      kLongPatience);
  // What one rank found is what all of them do.
  const std::string planned = process.all_gather(text, kLongPatience).front();
  PlanFile plan = read_plan(load_config_text(planned, "the plan of partition: " + by));
  config.pipeline.partition = {};
  config.pipeline.partition.counts = plan.pipeline.get<std::vector<int>>("partition");
  // Which schedule `auto` will come to is not known yet.
  const std::string key = prediction_key(config, plan.workers);
  if (key != plan.key) plan.predicted.reset();
  plan.key = key;
  loaded.notes.push_back(concat("partition ", by, ": layers per stage [", join(config.pipeline.partition.counts), "]",
                                plan.predicted ? concat(", predicted ", time_text(plan.predicted->step_us),
                                                        " a step, bubble ", percent_text(plan.predicted->bubble_steady))
                                               : std::string()));
  for (const std::string& note : {fewer, limits})
    if (!note.empty()) loaded.notes.push_back(note);
  loaded.plan = std::move(plan);
}

namespace {

/// Why an edited plan cannot be predicted from the costs that it carries; empty: it can.
std::string why_not_predicted(const Trainer& trainer, const PlanFile& plan, const Profile& profile,
                              const Planning& planning) {
  const Config& config = trainer.config();
  if (config.pipeline.schedule == "auto") return "which schedule `auto` comes to is known when the run has measured it";
  if (const std::size_t needed = trainer.layout().rank_of_row.size(); needed > plan.workers.size())
    return concat("the pipeline has ", needed, " workers, and `workers` says of ", plan.workers.size(),
                  " what they are");
  ProfileEnvironment decisive = profile_environment(config);  // another machine is no edit
  std::erase_if(decisive, [](const auto& entry) {
    return entry.first != "threads" && entry.first != "precision" && entry.first != "optimizer" &&
           entry.first != "dropout" && entry.first != "recompute_attention" && entry.first != "deterministic" &&
           entry.first != "float32_matmul";
  });
  if (const std::string other = foreign_environment(profile, decisive); !other.empty())
    return "its costs are of other settings, " + other;
  const std::vector<std::string> untold = planning.rows_untold();
  if (trainer.micro_batches() != plan.predicted_micro_batches && !untold.empty())
    return concat("its costs do not say how those of layer '", untold.front(), "' depend on the rows of a micro-batch");
  return "";
}

/// Of a plan that was edited: from the costs that it carries.
void predict_again(const Trainer& trainer, LoadedConfig& loaded) {
  PlanFile& plan = *loaded.plan;
  const std::string file = plan.root.location().file, edited = file + " or the config was edited since it was planned";
  if (plan.profile.empty()) {
    loaded.notes.push_back(concat(edited, ", and it carries no `profile` to predict from: nothing is predicted; ",
                                  plan_again(plan, loaded.config)));
    return;
  }
  const Profile profile = read_profile(plan.root.section("profile"));
  std::optional<Planning> planning;
  std::string why;
  try {
    planning.emplace(trainer.config(), plan.config, trainer, profile, plan.workers);
    why = why_not_predicted(trainer, plan, profile, *planning);
  } catch (const UserError& error) {  // workers are on devices of another kind now
    why = error.what();
  }
  if (!why.empty()) {
    loaded.notes.push_back(concat(edited, ", and nothing is predicted: ", why, "; ", plan_again(plan, loaded.config)));
    return;
  }
  const PlanProblem problem = planning->problem(trainer.partition().topology.replicas, plan.workers);
  plan.predicted = planning->predict(trainer, problem);
  plan.idle.clear();
  const PlanPrediction& p = *plan.predicted;
  loaded.notes.push_back(
      concat(edited, ": predicted again, ", time_text(p.step_us), " a step, bubble ", percent_text(p.bubble_steady)));
  if (const std::string fewer = fewer_replicas(problem, plan.choice, p.step_us); !fewer.empty())
    loaded.notes.push_back(fewer);
  for (std::size_t row = 0; row < p.peak_bytes.size(); ++row) {
    const std::size_t worker = plan.choice.worker_of(row);
    if (const double limit = plan.workers[worker].limit_bytes; p.peak_bytes[row] > limit)
      loaded.notes.push_back(concat("worker ", worker, " will need ", size_text(p.peak_bytes[row]), ", its limit in ",
                                    file, " is ", size_text(limit)));
  }
}

/// The config, or a flag, has the last word on where workers compute.
void move_to_devices(const Trainer& trainer, LoadedConfig& loaded) {
  PlanFile& plan = *loaded.plan;
  const std::string moved = devices_to_set(trainer.config(), plan.workers);
  if (moved.empty()) return;
  loaded.notes.push_back(concat(plan.root.location().file, " is for workers on ", moved,
                                ", which workers.devices does ", "not say here: --set 'workers.devices=", moved,
                                "' does"));
  for (std::size_t i = 0; i < plan.workers.size(); ++i) {
    PlannedWorker& worker = plan.workers[i];
    const std::string device = device_of_worker(trainer.config(), static_cast<int>(i));
    if (device != worker.place.device) worker.kind = kind_here(device);
    worker.place.device = device;
  }
}

/// Of this rank's workers.
std::vector<std::string> other_cards(const Trainer& trainer, const PlanFile& plan) {
  std::vector<std::string> notes;
  const Layout& layout = trainer.layout();
  for (std::size_t row = 0; row < std::min(plan.workers.size(), layout.rank_of_row.size()); ++row) {
    if (layout.rank_of_row[row] != layout.here) continue;
    const std::size_t index = plan.choice.worker_of(row);
    const std::string here = kind_here(plan.workers[index].place.device);
    if (here != plan.workers[index].kind)
      notes.push_back(concat("worker ", index, " computes on ", here, " here, and the plan is for ",
                             plan.workers[index].kind, ": its times will be others"));
  }
  return notes;
}

/// Neighbours on one rank hand over by pointer, others send: that is what messages cost.
bool runs_elsewhere(const Trainer& trainer, const PlanFile& plan) {
  const std::vector<RankId>& rank_of_row = trainer.layout().rank_of_row;
  if (plan.workers.size() != rank_of_row.size()) return true;
  const auto planned_rank = [&](std::size_t row) { return plan.workers[plan.choice.worker_of(row)].place.rank; };
  for (std::size_t row = 1; row < rank_of_row.size(); ++row)
    if ((planned_rank(row) == planned_rank(row - 1)) != (rank_of_row[row] == rank_of_row[row - 1])) return true;
  return false;
}

}  // namespace

void adopt_plan(const Trainer& trainer, LoadedConfig& loaded) {
  PlanFile& plan = *loaded.plan;
  if (plan.signature != model_signature(trainer))
    throw plan.root.section("model").error(
        "signature", concat("the plan is of another model: the layers of ", loaded.config.root.location().file,
                            " have other names, options, shapes or losses; ", plan_again(plan, loaded.config)));
  const PipelineConfig& pipeline = loaded.config.pipeline;
  plan.choice = choice_of(trainer);
  plan.replicas = loaded.config.replicas.count;
  plan.gradient_groups = loaded.config.gradient_groups();
  plan.recompute_text = recompute_text(pipeline);
  if (!plan.profile.empty()) plan.profile = to_yaml(read_profile(plan.root.section("profile")));  // as it was written
  move_to_devices(trainer, loaded);
  const std::string key = prediction_key(loaded.config, plan.workers);
  if (key != plan.key) predict_again(trainer, loaded);
  plan.key = key;
  if (const std::string idle = idle_text(plan); !idle.empty()) loaded.notes.push_back(idle);
}

std::unique_ptr<Trainer> make_planned_trainer(const ConfigSource& source, LoadedConfig& loaded, const Ranks& ranks) {
  std::unique_ptr<Trainer> trainer = make_trainer(source, loaded.config, ranks, loaded.trained);
  if (!loaded.plan) return trainer;
  adopt_plan(*trainer, loaded);
  if (runs_elsewhere(*trainer, *loaded.plan))
    loaded.notes.emplace_back(
        "the plan is for workers on other ranks than they are on here: messages will cost something else");
  for (const std::string& card : other_cards(*trainer, *loaded.plan)) loaded.notes.push_back(card);
  return trainer;
}

}  // namespace lockstep
