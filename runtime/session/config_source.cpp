// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/config_source.hpp"

#include <algorithm>

#include "models/registry.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/worker_devices.hpp"

namespace lockstep {
namespace {

bool is_auto(const Section& train) {
  return train.is_scalar("micro_batches") && train.get<std::string>("micro_batches") == "auto";
}

/// The config's own keys that gave way.
std::vector<std::string> replaced_keys(const Section& own, const Section& plan, const Section& both) {
  std::vector<std::string> keys;
  for (const std::string& key : plan.keys()) {
    const std::string text = plan.text(key);
    if (own.has(key) && own.text(key) != text && both.text(key) == text) keys.push_back("pipeline." + key);
  }
  return keys;
}

void check_plan(const PlanFile& plan, const Config& config, const Model& model) {
  const std::string file = config.root.location().file;
  if (plan.batch != config.train.batch)
    throw plan.train.error("batch",
                           concat("got ", plan.batch, ", but train.batch of ", file, " is ", config.train.batch,
                                  ": the plan is for other micro-batches; ", plan_again(plan, config)));
  if (plan.micro_batches != config.train.micro_batches)
    throw plan.train.error(
        "micro_batches",
        concat("got ", plan.micro_batches, ", but train.micro_batches of ", file, " is ", config.train.micro_batches,
               "; they are part of the numerics, so the plan does not change them; ", plan_again(plan, config),
               ", or set train.micro_batches=", plan.micro_batches));
  const auto layers = static_cast<int>(model.layers.size());
  if (plan.layers != layers)
    throw plan.root.section("model").error("layers",
                                           concat("got ", plan.layers, ", but the model of ", file, " has ", layers,
                                                  " layers: the plan is of another model; ", plan_again(plan, config)));
}

/// A prediction that somebody has edited.
void check_prediction(const PlanFile& plan, const Config& config) {
  const PlanPrediction& p = *plan.predicted;
  const Section section = plan.root.section("predicted");
  const auto check = [&](const char* key, std::size_t got, int expected) {
    if (got != static_cast<std::size_t>(expected))
      throw section.error(key, concat("got ", got, ", expected ", expected, "; remove `predicted`, or plan again"));
  };
  check("stages", p.stages.size(), config.pipeline.stages);
  check("workers", p.compute_us.size(), config.pipeline.workers());
  check("layers", p.layers.size(), plan.layers);
}

}  // namespace

bool ConfigSource::leaves_micro_batches() const {
  return !config && is_auto(load_config_file(path, overrides).section("train"));
}

Registry ConfigSource::registry(const Config& of) const {
  Registry registry;
  if (extend) extend(registry);
  load_plugins(of.plugins, of.root, registry);
  return registry;
}

Model ConfigSource::make_model(const Config& of, const Registry& known) const {
  if (model) return model();
  return lockstep::make_model(of.model, known.models, known);
}

DataSplits ConfigSource::open_data(const Config& of, const std::optional<TrainedOn>& trained,
                                   const Registry& known) const {
  if (data) return data();
  DataContext context;
  context.seed = of.seed;
  context.trained = trained;
  if (of.model.has("context")) context.context = of.model.get<std::int64_t>("context");
  return lockstep::open_data(of.data, context, known.readers);
}

LoadedConfig ConfigSource::load(int micro_batches) const {
  LoadedConfig loaded;
  if (config) {
    if (!plan.empty() || !plan_text.empty() || !overrides.empty())
      throw UserError("a config that is filled in by the program takes no plan and no overrides; set its fields");
    loaded.config = *config;
    check_config(loaded.config);
    return loaded;
  }
  if (plan.empty() && plan_text.empty()) {
    std::vector<std::string> all = overrides;
    if (micro_batches > 0 && leaves_micro_batches()) {
      const auto batch = load_config_file(path, overrides).section("train").get("batch", at_least<std::int64_t>(1));
      all.push_back(concat("train.micro_batches=", std::min<std::int64_t>(micro_batches, batch)));
    }
    loaded.config = read_config(load_config_file(path, all));
    return loaded;
  }
  const Section own = load_config_file(path, overrides);
  PlanFile file = read_plan(plan.empty() ? load_config_text(plan_text, "the plan") : load_config_file(plan));
  std::vector<ConfigOverlay> overlays = {{"pipeline", file.pipeline}};
  if (is_auto(own.section("train"))) overlays.push_back({"train", file.train, {"micro_batches"}});
  const Section both = load_config_file(path, overrides, overlays);
  loaded.config = read_config(both);
  check_plan(file, loaded.config, make_model(loaded.config));
  loaded.notes.push_back(plan.empty() ? "a plan" : "plan " + plan);
  const std::vector<std::string> replaced =
      replaced_keys(own.section("pipeline"), file.pipeline, both.section("pipeline"));
  if (!replaced.empty()) loaded.notes.back() += concat(": it takes the place of ", join(replaced), " in ", path);
  if (prediction_key(loaded.config, file.workers) != file.key || !devices_to_set(loaded.config, file.workers).empty())
    file.predicted.reset();  // made again with the trainer
  if (file.predicted) check_prediction(file, loaded.config);
  loaded.plan = std::move(file);
  return loaded;
}

}  // namespace lockstep
