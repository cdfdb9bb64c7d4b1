// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/start.hpp"

#include <cstdlib>
#include <optional>

#include "runtime/training/data_record.hpp"

namespace lockstep {
namespace {

constexpr const char* kOptimizerType = "train.optimizer.type";
constexpr const char* kGradientGroups = "train.gradient_groups";

TrainerState fresh_state(const Assembly& assembly) {
  const DataSplits& data = assembly.data;
  TrainerState state;
  state.samples = data.train->size();
  state.numerics = numerics_of(assembly.config);
  if (!data.arithmetic.empty()) state.numerics.emplace_back(kDataArithmetic, data.arithmetic);
  state.environment = environment_of(assembly);
  state.data = data.record;
  const EarlyStoppingConfig& stopping = assembly.config.train.early_stopping;
  if (stopping.given) state.watched = stopping.watch;
  return state;
}

void check_weights(const ModelGraph& graph, CheckpointStore& store) {
  const auto expect = [&](const std::string& name, at::ScalarType dtype, const std::vector<std::int64_t>& sizes) {
    const TensorEntry& entry = store.entry(TensorKind::weight, name);
    // Another precision is read as what it is here: whoever did not mean it has been refused by now.
    const bool fits = entry.dtype == dtype || (at::isFloatingType(entry.dtype) && at::isFloatingType(dtype));
    if (!fits || entry.sizes != sizes)
      throw CheckpointError(
          store.path(), name, -1,
          concat("is ", to_string(entry), ", the model has ", c10::toString(dtype), " [", join(sizes), "]"));
  };
  for (const ParameterInfo& parameter : graph.parameters)
    if (!parameter.is_base) expect(parameter.name, parameter.dtype, parameter.sizes);
  for (const BufferInfo& buffer : graph.buffers)
    if (!buffer.is_state) expect(buffer.name, buffer.dtype, buffer.sizes);
}

/// Whether, of what changed knowingly, the optimizer cannot go on: another type, or more to keep than is there.
bool optimizer_restarts(const Assembly& assembly, const TrainerState& fresh, const Start& start,
                        CheckpointStore& store) {
  if (start.findings.changed.empty()) return false;  // then what is missing is damage
  if (fresh.numeric(kOptimizerType) != start.saved.numeric(kOptimizerType)) return true;
  const ModelGraph& graph = assembly.graph;
  return std::any_of(graph.parameters.begin(), graph.parameters.end(), [&](const ParameterInfo& parameter) {
    if (!parameter.trainable) return false;
    const std::vector<KeptTensor> kept = assembly.optimizer.rule->keeps(parameter.sizes);
    return std::any_of(kept.begin(), kept.end(), [&](const KeptTensor& tensor) {
      const std::string name = concat(parameter.name, ".", tensor.name);
      return !store.has(TensorKind::optimizer, name) || store.entry(TensorKind::optimizer, name).sizes != tensor.sizes;
    });
  });
}

/// Where the config leaves them open, gradient groups are the checkpoint's.
void adopt_groups(Assembly& assembly, const TrainerState& saved, const std::string& checkpoint) {
  const Config& config = assembly.config;
  if (config.train.gradient_groups > 0) return;
  const int groups = std::atoi(saved.numeric(kGradientGroups).value_or("1").c_str());
  if (groups < config.replicas.count)
    throw config.root.section("replicas")
        .error("count",
               concat("got ", config.replicas.count, ", expected at most ", groups, ", the gradient groups of the ",
                      "checkpoint ", checkpoint, ": a group is not divided among replicas; take fewer, or go on with ",
                      "other sums, knowingly: --change ", kGradientGroups, "=", config.replicas.count));
  if (groups == config.gradient_groups()) return;
  Config with_groups = config;
  with_groups.train.gradient_groups = groups;
  assembly = assemble_again(assembly, std::move(with_groups), assembly.ranks);
}

}  // namespace

Start fresh_start(const Assembly& assembly) {
  Start start;
  start.state = start.saved = fresh_state(assembly);
  return start;
}

Start initial_start(const Assembly& assembly) {
  Start start = fresh_start(assembly);
  if (assembly.config.train.init_from.empty()) return start;
  start.initial = std::make_shared<InitialWeights>(initial_weights(assembly));
  start.state.changes.push_back(concat("before step 1: ", start.initial->summary()));
  return start;
}

Start resume(Assembly& assembly, const std::string& checkpoint, const ResumeRules& rules) {
  CheckpointStore store(checkpoint);
  DataSplits& data = assembly.data;
  Start start;
  start.checkpoint = checkpoint;
  start.saved = state_of(store);
  const TrainerState& saved = start.saved;
  if (saved.step != store.manifest().step)
    throw CheckpointError(checkpoint + "/" + kTrainerFile, "is of another step than the manifest");
  if (!rules.evaluates) adopt_groups(assembly, saved, checkpoint);
  // Without the mark the data was read as it was before the mark; what is saved from here on has none either.
  if (data.unrecorded && !saved.records(kDataArithmetic)) data = data.unrecorded();
  TrainerState fresh = fresh_state(assembly);
  if (!fresh.data && saved.data && assembly.feeds()) fresh.data = record_of(data);
  // A key that explains it comes first.
  ResumeRules informed = rules;
  std::optional<CheckpointError> misfit;
  try {
    check_weights(assembly.graph, store);
  } catch (const CheckpointError& error) {
    misfit = error;
    informed.misfit = error.what();
  }
  start.findings = check_resumable(assembly.config, fresh, saved, checkpoint, informed);
  if (data.taught_by && saved.data && !saved.data->learnt.empty() && saved.data->learnt != data.record->learnt)
    data = data.taught_by(*saved.data);
  if (misfit) throw *misfit;
  const bool restarts = !rules.evaluates && optimizer_restarts(assembly, fresh, start, store);
  if (restarts)
    start.findings.changed.push_back(concat("the optimizer's state begins anew after step ", saved.step,
                                            ": the checkpoint has none that it could go on with"));
  if (assembly.model.adapter && !assembly.config.train.init_from.empty())
    start.initial = std::make_shared<InitialWeights>(base_weights(assembly));
  if (rules.averaged) store.require_averages();
  start.averaged = rules.averaged;
  TrainerState& state = start.state = fresh_state(assembly);
  state.step = saved.step;
  state.position = saved.position;
  state.loss = saved.loss;
  state.losses = saved.losses;
  if (saved.best && saved.best->watched == assembly.config.checkpoint.best) state.best = saved.best;
  const EarlyStoppingConfig& stopping = assembly.config.train.early_stopping;
  if (stopping.given && saved.watched == stopping.watch) state.stopping = saved.stopping;
  state.optimizer_after = restarts ? saved.step : saved.optimizer_after;
  if (assembly.config.train.lr_schedule.is(LrScheduleType::plateau)) state.plateau = saved.plateau;
  state.changes = saved.changes;
  for (const std::string& change : start.findings.changed)
    state.changes.push_back(concat("after step ", saved.step, ": ", change));
  return start;
}

}  // namespace lockstep
