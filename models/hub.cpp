// SPDX-License-Identifier: Apache-2.0
#include "models/hub.hpp"

#include <algorithm>
#include <fstream>

namespace lockstep {

HubConfig::HubConfig(const std::string& folder) : file_(folder + "/config.json") {
  std::ifstream stream(file_);
  if (!stream && std::ifstream(folder + "/adapter_config.json"))
    throw UserError(
        concat(folder, " is an adapter: take the folder of its base here (base_model_name_or_path of its ",
               "adapter_config.json), describe it with model.lora, and start from it with train.init_from"));
  if (!stream) throw UserError(concat(file_, ": cannot be read; expected a folder as save_pretrained writes it"));
  json_ = nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!json_.is_object()) throw UserError(concat(file_, ": is no JSON object"));
}

HubConfig HubConfig::below(const std::string& key) const {
  if (!has(key)) return {file_, path_ + key + ".", nlohmann::json::object()};
  if (!json_[key].is_object()) throw error(key, "got " + json_[key].dump() + ", expected a mapping");
  return {file_, path_ + key + ".", json_[key]};
}

double HubConfig::one_rate(const std::string& key, const std::vector<std::string>& others) const {
  constexpr double usual = 0.1;
  const auto rate = get(key, usual);
  for (const std::string& other : others)
    if (const double got = get(other, usual); got != rate)
      throw error(other, concat("got ", got, ", but ", key, " is ", rate, "; this family has one rate for all"));
  return rate;
}

UserError HubConfig::error(const std::string& key, const std::string& message) const {
  return UserError(concat(file_, ": ", path_, key, ": ", message));
}

Section from_hub(const Section& model, const Table<ModelFamily>& families) {
  if (!model.has("from")) return model;
  const HubConfig config(model.get<std::string>("from", not_empty()));
  const auto type = config.get<std::string>("model_type");
  std::vector<std::string> known;
  for (const ModelFamily& family : families.entries()) {
    known.insert(known.end(), family.hub_types.begin(), family.hub_types.end());
    if (std::find(family.hub_types.begin(), family.hub_types.end(), type) == family.hub_types.end()) continue;
    if (model.has("type") && model.get<std::string>("type") != family.name)
      throw model.error("type", concat("got ", model.get<std::string>("type"), ", but ", config.file(), " is of a ",
                                       type, ", which is a ", family.name, " here; leave the key out"));
    const Section own = model.without({"from"});
    nlohmann::ordered_json json = {{"type", family.name}};
    json.update(nlohmann::ordered_json::parse(family.from_hub(config)));
    const Section keys = load_config_text(json.dump(), config.file());
    return own.overlaid(keys).overlaid(own);
  }
  throw model.error("from", concat(config.file(), " is of the model_type ", type, "; known are ", join(known),
                                   did_you_mean(type, known)));
}

}  // namespace lockstep
