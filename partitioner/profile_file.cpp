// SPDX-License-Identifier: Apache-2.0
#include "partitioner/profile_file.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 2;
constexpr double kBytesPerMib = 1048576, kBytesPerUsPerGigabyte = 1e3;

constexpr int kTimesOfLayer = 3;  // the first fields: what a layer by hand has to have

struct LinkClass {
  const char* key;
  LinkCost Links::*member;
};
constexpr LinkClass kLinkClasses[] = {
    {"same_rank", &Links::same_rank}, {"same_host", &Links::same_host}, {"other_host", &Links::other_host}};

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

// ---- numbers of a layer ----

LayerSample sample_at(const LayerProfile& layer, double rows) {
  LOCKSTEP_CHECK(!layer.samples.empty(), "layer ", layer.name, " has no sample");
  const std::vector<LayerSample>& samples = layer.samples;
  LayerSample result = samples.back();
  result.rows = std::llround(rows);
  if (samples.size() == 1) {
    if (samples[0].rows == 0) return result;
    const double scale = rows / static_cast<double>(samples[0].rows);
    for (const LayerCostField& field : layer_cost_fields())
      if (field.per_row) result.*field.member *= scale;
    return result;
  }
  std::size_t upper = 1;
  while (upper + 1 < samples.size() && static_cast<double>(samples[upper].rows) < rows) ++upper;
  const LayerSample &a = samples[upper - 1], &b = samples[upper];
  const double share = (rows - static_cast<double>(a.rows)) / static_cast<double>(b.rows - a.rows);
  // A row does not become cheaper when there are fewer of them, whatever a line through two noisy sizes says.
  const double proportion = share < 0 ? rows / static_cast<double>(a.rows) : 0.0;
  for (const LayerCostField& field : layer_cost_fields())
    if (field.per_row)
      result.*field.member =
          std::max(proportion * a.*field.member, a.*field.member + share * (b.*field.member - a.*field.member));
  result.spread = std::max(a.spread, b.spread);
  return result;
}

namespace {

void put_in_place(const HandCosts& hand, LayerSample& sample, LayerProfile& layer) {
  for (const auto& [key, number] : hand.numbers)
    for (const LayerCostField& field : layer_cost_fields()) {
      if (key != field.by_hand) continue;
      if (&field < layer_cost_fields().data() + kTimesOfLayer) layer.misfit = 0;  // that was of the measured times
      layer.rows_untold = layer.rows_untold || (field.per_row && hand.rows == 0 && number > 0);
      const bool scales = hand.rows > 0 && field.per_row;
      sample.*field.member =
          number * field.unit * (scales ? static_cast<double>(sample.rows) / static_cast<double>(hand.rows) : 1.0);
    }
}

/// Nothing was measured: the times have to be there.
void check_times(const HandCosts& hand, const std::string& layer) {
  for (int i = 0; i < kTimesOfLayer; ++i) {
    const std::string wanted = layer_cost_fields()[i].by_hand;
    const auto given = [&](const auto& entry) { return entry.first == wanted; };
    if (std::none_of(hand.numbers.begin(), hand.numbers.end(), given))
      throw ConfigError(hand.at, "costs." + hand.pattern,
                        concat("got no ", wanted, ", expected forward_ms, input_grad_ms and weight_grad_ms: layer '",
                               layer, "' was not measured; write all three, or measure: lockstep profile CONFIG"));
  }
}

}  // namespace

LayerProfile profile_of_layer(const Profile& profile, const std::string& layer, const std::string& signature) {
  const auto measured = std::find_if(profile.layers.begin(), profile.layers.end(),
                                     [&](const LayerProfile& entry) { return entry.signature == signature; });
  const auto hand = std::find_if(profile.costs.begin(), profile.costs.end(), [&](const HandCosts& costs) {
    return fnmatch(costs.pattern.c_str(), layer.c_str(), 0) == 0;
  });
  const bool is_measured = measured != profile.layers.end(), is_by_hand = hand != profile.costs.end();
  if (!is_measured && !is_by_hand)
    throw UserError(concat(profile.file.empty() ? "the profile" : profile.file, ": got no cost of layer '", layer,
                           "' (", signature, "): it is of another model",
                           profile.model.empty() ? "" : concat(" than ", profile.model),
                           ", or the layer's options, shapes or dtypes have changed since; measure again: lockstep "
                           "profile CONFIG -o ",
                           profile.file.empty() ? "profile.json" : profile.file));
  LayerProfile result;
  if (is_measured) {
    result = *measured;
    result.rows_untold = result.samples.size() == 1;
  } else {
    check_times(*hand, layer);
    result.samples.emplace_back().rows = hand->rows;
  }
  result.name = layer;
  if (is_by_hand)
    for (LayerSample& sample : result.samples) put_in_place(*hand, sample, result);
  return result;
}

// ---- profiles ----

Profile overlaid(Profile profile, const Profile& over) {
  if (!over.layers.empty())
    throw UserError(concat(over.file,
                           ": got measured layers (key 'layers'), expected costs, links and workers written ",
                           "by hand, to be laid over measured ones"));
  profile.costs.insert(profile.costs.begin(), over.costs.begin(), over.costs.end());
  for (const LinkClass& link : kLinkClasses) {
    if (!contains(over.given_links, link.key)) continue;
    profile.links.*link.member = over.links.*link.member;
    if (!contains(profile.given_links, link.key)) profile.given_links.emplace_back(link.key);
  }
  if (!over.workers.empty()) profile.workers = over.workers;
  return profile;
}

std::string foreign_environment(const Profile& profile, const ProfileEnvironment& here) {
  std::string differences;
  for (const auto& [key, value] : here) {
    const auto there = std::find_if(profile.environment.begin(), profile.environment.end(),
                                    [&, wanted = key](const auto& entry) { return entry.first == wanted; });
    if (there == profile.environment.end() || there->second == value) continue;
    if (key == "micro_batches" || key == "batch" || key == "seed") continue;
    differences += concat(differences.empty() ? "" : "; ", key, ": ", value, " here, ", there->second, " in ",
                          profile.file.empty() ? "the profile" : profile.file);
  }
  return differences;
}

namespace {

Json json_of(const LayerSample& sample) {
  Json json;
  json["rows"] = sample.rows;
  for (const LayerCostField& field : layer_cost_fields()) json[field.key] = sample.*field.member;
  json["spread"] = sample.spread;
  return json;
}

Json json_of(const LayerProfile& layer) {
  Json json{{"name", layer.name}, {"signature", layer.signature}, {"misfit", layer.misfit}, {"samples", Json::array()}};
  for (const LayerSample& sample : layer.samples) json["samples"].push_back(json_of(sample));
  return json;
}

Json json_of(const HandCosts& costs) {
  Json json = Json::object();
  if (costs.rows > 0) json["rows"] = costs.rows;
  for (const auto& [key, number] : costs.numbers) json[key] = number;
  return json;
}

Json json_of(const LinkCost& link, bool assumed) {
  Json json = Json::object();
  json["latency_us"] = link.latency_us;
  if (std::isfinite(link.bytes_per_us)) json["gigabytes_per_s"] = link.bytes_per_us / kBytesPerUsPerGigabyte;
  if (link.busy_us_per_byte > 0) json["busy_us_per_mib"] = link.busy_us_per_byte * kBytesPerMib;
  if (assumed) json["assumed"] = true;
  return json;
}

}  // namespace

std::string to_json(const LayerSample& sample) {
  return json_of(sample).dump();
}

std::string to_json(const Profile& profile) {
  Json json{{"format", kFormat}, {"model", profile.model}};
  json["environment"] = Json::object();
  for (const auto& [key, value] : profile.environment) json["environment"][key] = value;
  json["layers"] = Json::array();
  for (const LayerProfile& layer : profile.layers) json["layers"].push_back(json_of(layer));
  if (!profile.costs.empty()) json["costs"] = Json::object();
  for (const HandCosts& costs : profile.costs)
    if (!json["costs"].contains(costs.pattern)) json["costs"][costs.pattern] = json_of(costs);  // the first one counts
  for (const LinkClass& link : kLinkClasses)
    json["links"][link.key] = json_of(profile.links.*link.member, !contains(profile.given_links, link.key));
  json["workers"] = Json::array();
  for (const ProfiledWorker& worker : profile.workers)
    json["workers"].push_back({{"speed", worker.speed}, {"rank", worker.place.rank}, {"host", worker.place.host}});
  return json.dump(1) + "\n";
}

std::string to_yaml(const Profile& profile) {
  std::string text;
  const Json json = Json::parse(to_json(profile));
  for (const auto& [key, value] : json.items()) {
    const bool list = value.is_array() && !value.empty();
    text += key + ":" + (list ? "" : " " + value.dump()) + "\n";
    if (!list) continue;
    for (const Json& entry : value) text += "  - " + entry.dump() + "\n";
  }
  return text;
}

// ---- reading ----

LayerSample read_sample(const Section& section) {
  LayerSample sample;
  sample.rows = section.get<std::int64_t>("rows", at_least<std::int64_t>(1));
  for (const LayerCostField& field : layer_cost_fields())
    sample.*field.member = section.get<double>(field.key, at_least(0.0));
  sample.spread = section.get<double>("spread", 0.0, at_least(0.0));
  section.finish();
  return sample;
}

namespace {

LayerProfile read_layer(const Section& section) {
  LayerProfile layer;
  layer.name = section.get<std::string>("name", not_empty());
  layer.signature = section.get<std::string>("signature", not_empty());
  layer.misfit = section.get<double>("misfit", 0.0, at_least(0.0));
  for (const Section& sample : section.sections("samples")) {
    layer.samples.push_back(read_sample(sample));
    const std::size_t count = layer.samples.size();
    if (count > 1 && layer.samples[count - 2].rows >= layer.samples[count - 1].rows)
      throw sample.unexpected("rows",
                              concat("more than ", layer.samples[count - 2].rows, ", those of the sample before"));
  }
  if (layer.samples.empty()) throw section.error("samples", "got none, expected at least one sample");
  section.finish();
  return layer;
}

std::vector<LayerProfile> read_layers(const Section& root) {
  if (root.is_mapping("layers"))
    throw root.error(
        "layers", "got a mapping, expected a list, as lockstep profile writes it; costs by hand stand under 'costs'");
  std::vector<LayerProfile> layers;
  std::set<std::string> signatures;
  for (const Section& section : root.sections("layers")) {
    layers.push_back(read_layer(section));
    if (!signatures.insert(layers.back().signature).second)
      throw section.error("signature", concat("got ", layers.back().signature, " twice, expected it once"));
  }
  return layers;
}

HandCosts read_costs(const Section& section, const std::string& pattern) {
  HandCosts costs;
  costs.pattern = pattern;
  costs.at = section.location();
  costs.rows = section.get<std::int64_t>("rows", 0, at_least<std::int64_t>(1));
  for (const LayerCostField& field : layer_cost_fields())
    if (section.has(field.by_hand))
      costs.numbers.emplace_back(field.by_hand, section.get<double>(field.by_hand, at_least(0.0)));
  section.finish();
  if (costs.numbers.empty())
    throw ConfigError(section.location(), section.path(),
                      "got no number, expected at least one, such as forward_ms: 10");
  return costs;
}

void read_links(const Section& links, Profile& profile) {
  for (const LinkClass& link : kLinkClasses) {
    if (!links.has(link.key)) continue;
    const Section section = links.section(link.key);
    LinkCost& cost = profile.links.*link.member;
    cost.latency_us = section.get<double>("latency_us", 0.0, at_least(0.0));
    if (section.has("gigabytes_per_s"))
      cost.bytes_per_us = section.get<double>("gigabytes_per_s", above(0.0)) * kBytesPerUsPerGigabyte;
    cost.busy_us_per_byte = section.get<double>("busy_us_per_mib", 0.0, at_least(0.0)) / kBytesPerMib;
    if (!section.get<bool>("assumed", false)) profile.given_links.emplace_back(link.key);
    section.finish();
  }
  links.finish();
}

std::vector<ProfiledWorker> read_workers(const Section& root) {
  constexpr int most = 1 << 20;
  std::vector<ProfiledWorker> workers;
  for (const Section& section : root.sections("workers")) {
    const int count = section.get<int>("count", 1, between(1, most));
    const double speed = section.get<double>("speed", 1.0, above(0.0));
    const int rank = section.get<int>("rank", static_cast<int>(workers.size()), between(0, most));
    const int host = section.get<int>("host", 0, between(0, most));
    section.finish();
    for (int i = 0; i < count; ++i) workers.push_back({speed, {rank + i, host}});
  }
  return workers;
}

}  // namespace

Profile read_profile(const Section& root) {
  if (!root.has("format") || root.is_mapping("model"))
    throw root.error("", "this is no profile; lockstep profile makes one");
  if (const int format = root.get<int>("format"); format != kFormat)
    throw root.unexpected("format", std::to_string(kFormat),
                          "; another version of Lockstep wrote it: measure again with lockstep profile");
  Profile profile;
  profile.file = root.location().file;
  profile.model = root.get<std::string>("model", std::string());
  const Section environment = root.section("environment");
  for (const std::string& key : environment.keys())
    profile.environment.emplace_back(key, environment.get<std::string>(key));
  profile.layers = read_layers(root);
  const Section costs = root.section("costs");
  for (const std::string& pattern : costs.keys()) profile.costs.push_back(read_costs(costs.section(pattern), pattern));
  read_links(root.section("links"), profile);
  profile.workers = read_workers(root);
  root.finish();
  return profile;
}

Profile load_profile(const std::string& path) {
  return read_profile(load_config_file(path));
}

}  // namespace lockstep
