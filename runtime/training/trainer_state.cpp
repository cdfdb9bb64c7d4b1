// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer_state.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/text.hpp"
#include "runtime/checkpoint/checkpoint_error.hpp"
#include "runtime/checkpoint/manifest.hpp"
#include "runtime/config/lr_schedule.hpp"
#include "runtime/config/value.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/training/data_record.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;
using Keys = std::vector<std::pair<std::string, std::string>>;

/// JSON holds UTF-8 only; a path may hold other bytes, which become U+FFFD.
std::string in_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

/// The layers of a model, which have keys of their own. (Groups of an optimizer are one value, as they always were.)
bool is_list_of_layers(const Section& section, const std::string& key, const std::string& name) {
  if (!name.starts_with("model.") || !section.is_sequence(key)) return false;
  const std::vector<yaml::Value>& items = section.value().find(key)->items;
  const auto is_mapping = [](const yaml::Value& item) { return item.kind == yaml::Value::Kind::mapping; };
  return !items.empty() && std::all_of(items.begin(), items.end(), is_mapping);
}

void flatten(const Section& section, const std::string& path, Keys& keys) {
  for (const std::string& key : section.keys()) {
    const std::string name = path.empty() ? key : path + "." + key;
    if (section.is_mapping(key))
      flatten(section.section(key), name, keys);
    else if (is_list_of_layers(section, key, name))
      for (int i = 0; const Section& layer : section.sections(key)) flatten(layer, concat(name, "[", i++, "]"), keys);
    else if (decides_bits(name))
      keys.emplace_back(name, in_utf8(section.text(key)));
  }
}

/// JSON has no infinities or NaN.
std::string number_text(double value) {
  return hex(std::bit_cast<std::uint64_t>(value));
}
double number_of(const Json& text) {
  return std::bit_cast<double>(from_hex(text.get<std::string>()));
}

PlateauState plateau_of(const Json& json) {
  const auto number = [&](const char* key) { return json.at(key).get<std::int64_t>(); };
  PlateauState state{number("evaluated"), number("bad"), number("cooldown"), number("reductions"), number("reduced")};
  if (state.reductions < 0 || state.reductions > state.evaluated)
    throw std::runtime_error("plateau: more reductions than evaluations");
  state.best = number_of(json.at("best_bits"));
  return state;
}

Json json_of(const PlateauState& state) {
  return {{"evaluated", state.evaluated},   {"bad", state.bad},         {"cooldown", state.cooldown},
          {"reductions", state.reductions}, {"reduced", state.reduced}, {"best_bits", number_text(state.best)}};
}

}  // namespace

std::uint64_t losses_hash(std::uint64_t before, double loss) {
  return mix_seed(before, std::bit_cast<std::uint64_t>(loss), 0, "loss");
}

std::optional<std::string> TrainerState::numeric(const std::string& key) const {
  const auto found =
      std::find_if(numerics.begin(), numerics.end(), [&](const auto& entry) { return entry.first == key; });
  return found == numerics.end() ? std::nullopt : std::optional(found->second);
}

std::string TrainerState::to_json() const {
  Json json = {{"step", step}, {"position", position},           {"samples", samples},
               {"loss", loss}, {"loss_bits", number_text(loss)}, {"losses", hex(losses)}};
  if (best)
    json["best"] = {
        {"step", best->step}, {best->watched, best->value}, {best->watched + "_bits", number_text(best->value)}};
  if (best && best->watched != kEvalLoss) json["best"]["watched"] = best->watched;
  if (optimizer_after != 0) json["optimizer_after"] = optimizer_after;
  if (plateau != PlateauState{}) json["plateau"] = json_of(plateau);
  if (!watched.empty()) {
    json["early_stopping"] = json_of(stopping);
    json["early_stopping"]["watch"] = watched;
  }
  json["numerics"] = Json::object();
  for (const auto& [key, value] : numerics) json["numerics"][key] = value;
  json["environment"] = Json::object();
  for (const auto& [key, value] : environment.entries) json["environment"][key] = value;
  if (!changes.empty()) json["changes"] = changes;
  return json.dump(2) + "\n";
}

TrainerState state_of(const CheckpointStore& store) {
  TrainerState state = TrainerState::from_json(store.text(kTrainerFile), store.path() + "/" + kTrainerFile);
  state.data = data_record_of(store);
  return state;
}

TrainerState TrainerState::from_json(const std::string& text, const std::string& file) {
  try {
    const Json json = Json::parse(text);
    TrainerState state;
    state.step = json.at("step").get<std::int64_t>();
    state.position = json.at("position").get<std::int64_t>();
    state.samples = json.at("samples").get<std::int64_t>();
    state.loss = number_of(json.at("loss_bits"));
    state.losses = from_hex(json.at("losses").get<std::string>());
    if (json.contains("best")) {
      const Json& best = json.at("best");
      const std::string watched = best.value("watched", kEvalLoss);
      state.best = {best.at("step").get<std::int64_t>(), number_of(best.at(watched + "_bits")), watched};
    }
    state.optimizer_after = json.value("optimizer_after", std::int64_t{0});
    if (json.contains("plateau")) state.plateau = plateau_of(json.at("plateau"));
    if (json.contains("early_stopping")) {
      state.stopping = plateau_of(json.at("early_stopping"));
      state.watched = json.at("early_stopping").at("watch").get<std::string>();
    }
    for (const auto& [key, value] : json.at("numerics").items())
      state.numerics.emplace_back(key, value.get<std::string>());
    for (const auto& [key, value] : json.at("environment").items())
      state.environment.entries.emplace_back(key, value.get<std::string>());
    if (json.contains("changes")) state.changes = json.at("changes").get<std::vector<std::string>>();
    if (state.step < 1 || state.position < 1) throw std::runtime_error("step and position must be 1 or more");
    if (state.optimizer_after >= state.step) throw std::runtime_error("optimizer_after must be below step");
    return state;
  } catch (const std::exception& error) {
    throw CheckpointError(file, concat("is damaged: ", reason_of(error)));
  }
}

Keys numerics_of(const Config& config) {
  Config resolved = config;
  resolved.train.lr_schedule = with_end(config.train);
  Keys keys;
  if (config.train.lr_schedule.is(LrScheduleType::plateau)) {  // its rates follow from evaluations, free otherwise
    keys = {{kEvalEvery, concat(config.train.eval_every)},
            {"train.eval_batch", concat(config.train.rows_of_evaluation())},
            {"train.eval_steps", concat(config.train.eval_steps)}};
    for (const std::string& key : config.data.keys())  // files are known by what is in them
      if (key.starts_with("eval") && key != "eval") keys.emplace_back("data." + key, in_utf8(config.data.text(key)));
  }
  flatten(load_config_text(resolved_yaml(resolved), "resolved config"), "", keys);
  return keys;
}

std::string environment_difference(const TrainerState& state, const Environment& here) {
  const std::map<std::string, std::string> now(here.entries.begin(), here.entries.end());
  std::vector<std::string> differences;
  for (const auto& [key, value] : state.environment.entries) {
    const auto found = now.find(key);
    if (found != now.end() && found->second != value)
      differences.push_back(concat(key, " ", found->second, " instead of ", value));
  }
  return join(differences);
}

}  // namespace lockstep
