// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/config_source.hpp"

#include <algorithm>

#include "models/hub.hpp"
#include "runtime/session/model_sizes.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/worker_devices.hpp"

namespace lockstep {
namespace {

bool is_auto(const Section& train) {
  return train.is_scalar("micro_batches") && train.get<std::string>("micro_batches") == "auto";
}

/// The config's own keys that gave way.
std::vector<std::string> replaced_keys(const Section& own, const Section& both,
                                       const std::vector<ConfigOverlay>& overlays) {
  std::vector<std::string> keys;
  for (const ConfigOverlay& overlay : overlays) {
    if (overlay.key == "train") continue;  // the numerics are the config's
    const Section here = own.section(overlay.key);
    for (const std::string& key : overlay.section.keys()) {
      const std::string text = overlay.section.text(key);
      if (here.has(key) && here.text(key) != text && both.section(overlay.key).text(key) == text)
        keys.push_back(concat(overlay.key, ".", key));
    }
  }
  return keys;
}

/// As a config says it that is not read yet.
int gradient_groups_of(const Section& root) {
  const int replicas = root.section("replicas").get("count", 1, at_least(1));
  const int groups = root.section("train").get("gradient_groups", 0, at_least(0));
  return groups > 0 ? groups : replicas;
}

void check_groups(const PlanFile& plan, const Section& own) {
  const int groups = gradient_groups_of(own);
  if (groups == plan.gradient_groups) return;
  throw plan.train.error("gradient_groups",
                         concat("got ", plan.gradient_groups, ", but ", own.location().file, " adds gradients up in ",
                                groups, groups == 1 ? " group" : " groups",
                                " of micro-batches; they are part of the numerics, so the plan does not "
                                "change them: set train.gradient_groups=",
                                plan.gradient_groups, ", or plan again"));
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
  check("stages", p.stages.size(), config.pipeline.stages * config.replicas.count);
  check("workers", p.compute_us.size(), config.all_workers());
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

Config ConfigSource::read(const Section& root) const {
  Config read = read_config(root);
  if (read.model.has("from")) read.model = from_hub(read.model, registry(read).models);
  return read;
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
      const Section root = load_config_file(path, overrides);
      const auto batch = root.section("train").get("batch", at_least<std::int64_t>(1));
      const int least = std::max(micro_batches, gradient_groups_of(root));
      all.push_back(concat("train.micro_batches=", std::min<std::int64_t>(least, batch)));
    }
    loaded.config = read(load_config_file(path, all));
    return loaded;
  }
  const Section own = load_config_file(path, overrides);
  PlanFile file = read_plan(plan.empty() ? load_config_text(plan_text, "the plan") : load_config_file(plan));
  std::vector<ConfigOverlay> overlays = {{"pipeline", file.pipeline}};
  if (is_auto(own.section("train"))) overlays.push_back({"train", file.train, {"micro_batches"}});
  if (file.root.has("replicas")) {
    check_groups(file, own);
    overlays.push_back({"replicas", file.replicas_section});
    if (file.gradient_groups > 1) overlays.push_back({"train", file.train, {"gradient_groups"}});
  }
  const Section both = load_config_file(path, overrides, overlays);
  loaded.config = read(both);
  Config sized = loaded.config;
  const Registry known = registry(sized);
  if (leaves_sizes(sized.model)) sized.model = with_sizes(sized.model, open_data(sized, {}, known));
  check_plan(file, loaded.config, make_model(sized, known));
  loaded.notes.push_back(plan.empty() ? "a plan" : "plan " + plan);
  const std::vector<std::string> replaced = replaced_keys(own, both, overlays);
  if (!replaced.empty()) loaded.notes.back() += concat(": it takes the place of ", join(replaced), " in ", path);
  if (prediction_key(loaded.config, file.workers) != file.key || !devices_to_set(loaded.config, file.workers).empty())
    file.predicted.reset();  // made again with the trainer
  if (file.predicted) check_prediction(file, loaded.config);
  loaded.plan = std::move(file);
  return loaded;
}

}  // namespace lockstep
