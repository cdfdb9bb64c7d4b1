// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/trainer_state.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/text.hpp"
#include "runtime/checkpoint/checkpoint_error.hpp"
#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;
using Keys = std::vector<std::pair<std::string, std::string>>;

/// Of workers only the number of threads does; of data all but the evaluation set.
bool decides_bits(const std::string& key) {
  static const std::set<std::string> free = {"name",
                                             "run_dir",
                                             "model.library",
                                             "train.steps",
                                             "train.eval_every",
                                             "train.eval_batch",
                                             "train.eval_steps",
                                             "train.log_every",
                                             "train.stop_on_nan",
                                             "train.stop_after"};
  if (key.starts_with("workers.")) return key == "workers.threads";
  for (const char* section : {"pipeline.", "comm.", "checkpoint.", "data.eval"})
    if (key.starts_with(section)) return false;
  return free.count(key) == 0;
}

/// JSON holds UTF-8 only; a path may hold other bytes, which become U+FFFD.
std::string in_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

void flatten(const Section& section, const std::string& path, Keys& keys) {
  for (const std::string& key : section.keys()) {
    const std::string name = path.empty() ? key : path + "." + key;
    if (section.is_mapping(key))
      flatten(section.section(key), name, keys);
    else if (decides_bits(name))
      keys.emplace_back(name, in_utf8(section.text(key)));
  }
}

/// The section that holds `key`, and the key's own name.
std::pair<Section, std::string> find(const Section& root, const std::string& key) {
  const std::size_t dot = key.find('.');
  if (dot == std::string::npos || !root.is_mapping(key.substr(0, dot))) return {root, key};
  return find(root.section(key.substr(0, dot)), key.substr(dot + 1));
}

/// 0 and 0.0 are one value.
bool same_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  char *end_a = nullptr, *end_b = nullptr;
  const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
  return !a.empty() && !b.empty() && *end_a == '\0' && *end_b == '\0' && x == y;
}

/// JSON has no infinities or NaN.
std::string number_text(double value) {
  return hex(std::bit_cast<std::uint64_t>(value));
}
double number_of(const Json& text) {
  return std::bit_cast<double>(from_hex(text.get<std::string>()));
}

}  // namespace

std::uint64_t losses_hash(std::uint64_t before, double loss) {
  return mix_seed(before, std::bit_cast<std::uint64_t>(loss), 0, "loss");
}

bool TrainerState::records(const std::string& key) const {
  return std::any_of(numerics.begin(), numerics.end(), [&](const auto& entry) { return entry.first == key; });
}

std::string TrainerState::to_json() const {
  Json json = {{"step", step}, {"position", position},           {"samples", samples},
               {"loss", loss}, {"loss_bits", number_text(loss)}, {"losses", hex(losses)}};
  if (best)
    json["best"] = {{"step", best->step}, {"eval_loss", best->loss}, {"eval_loss_bits", number_text(best->loss)}};
  json["numerics"] = Json::object();
  for (const auto& [key, value] : numerics) json["numerics"][key] = value;
  json["environment"] = Json::object();
  for (const auto& [key, value] : environment.entries) json["environment"][key] = value;
  return json.dump(2) + "\n";
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
    if (json.contains("best"))
      state.best = {json.at("best").at("step").get<std::int64_t>(), number_of(json.at("best").at("eval_loss_bits"))};
    for (const auto& [key, value] : json.at("numerics").items())
      state.numerics.emplace_back(key, value.get<std::string>());
    for (const auto& [key, value] : json.at("environment").items())
      state.environment.entries.emplace_back(key, value.get<std::string>());
    if (state.step < 1 || state.position < 1) throw std::runtime_error("step and position must be 1 or more");
    return state;
  } catch (const std::exception& error) {
    throw CheckpointError(file, concat("is damaged: ", reason_of(error)));
  }
}

Keys numerics_of(const Config& config) {
  Config resolved = config;
  // A schedule that ends with the training is another one when training gets longer.
  LrScheduleConfig& schedule = resolved.train.lr_schedule;
  const bool decays = schedule.type == "linear" || schedule.type == "cosine";
  if (decays && schedule.decay_steps == 0) schedule.decay_steps = resolved.train.steps;
  Keys keys;
  flatten(load_config_text(resolved_yaml(resolved), "resolved config"), "", keys);
  return keys;
}

void check_resumable(const Config& config, const TrainerState& fresh, const TrainerState& state,
                     const std::string& checkpoint) {
  const Keys& now = fresh.numerics;
  const std::map<std::string, std::string> ours(now.begin(), now.end());
  const std::map<std::string, std::string> theirs(state.numerics.begin(), state.numerics.end());
  const auto refuse = [&](const std::string& key, const std::string& got, const std::string& expected) {
    const auto [section, name] = find(config.root, key);
    const std::string advice =
        key == "train.lr_schedule.decay_steps"
            ? concat("set train.lr_schedule.decay_steps=", expected, " to train longer at the same learning rates")
            : std::string("set it as it was, or train from the start in another run_dir");
    throw section.error(name, concat("got ", got, ", expected ", expected, " as in the checkpoint ", checkpoint,
                                     ": resuming would not go on as that run; ", advice));
  };
  for (const auto& [key, value] : state.numerics)
    if (!ours.count(key) || !same_value(ours.at(key), value))
      refuse(key, ours.count(key) ? ours.at(key) : "nothing", value);
  for (const auto& [key, value] : now)
    if (!theirs.count(key)) refuse(key, value, "nothing");
  if (fresh.samples != state.samples)
    throw config.root.error(
        "data", concat("got ", fresh.samples, " training samples, expected ", state.samples, " as in the checkpoint ",
                       checkpoint, ": the files have changed; train on the same ones"));
  if (config.train.steps < state.step)
    throw config.root.section("train").error(
        "steps", concat("got ", config.train.steps, ", expected at least ", state.step, ", the step of the checkpoint ",
                        checkpoint, "; set it to more, or resume from an older one"));
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
