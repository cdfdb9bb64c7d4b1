// SPDX-License-Identifier: Apache-2.0
#include "partitioner/profile_file.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/size.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 2;
constexpr double kBytesPerMib = 1048576, kBytesPerUsPerGigabyte = 1e3;

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

// ---- profiles ----

Profile overlaid(Profile profile, const Profile& over) {
  if (!over.layers.empty())
    throw UserError(concat(over.file,
                           ": got measured layers (key 'layers'), expected costs, devices, links and workers written ",
                           "by hand, to be laid over measured ones"));
  profile.costs.insert(profile.costs.begin(), over.costs.begin(), over.costs.end());
  profile.devices.insert(profile.devices.begin(), over.devices.begin(), over.devices.end());
  for (const LinkClass& link : link_classes()) {
    if (!contains(over.given_links, link.key)) continue;
    profile.links.*link.member = over.links.*link.member;
    if (!contains(profile.given_links, link.key)) profile.given_links.emplace_back(link.key);
  }
  for (const auto& [kind, rate] : over.added_bytes_per_us) profile.added_bytes_per_us[kind] = rate;
  if (!over.workers.empty()) profile.workers = over.workers;
  return profile;
}

std::string foreign_environment(const Profile& profile, const ProfileEnvironment& here) {
  ProfileEnvironment all = profile.environment;
  if (!profile.workers.empty())
    all.insert(all.end(), profile.workers.front().devices.begin(), profile.workers.front().devices.end());
  std::string differences;
  for (const auto& [key, value] : here) {
    const auto there =
        std::find_if(all.begin(), all.end(), [&, wanted = key](const auto& entry) { return entry.first == wanted; });
    if (there == all.end() || there->second == value) continue;
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
  Json json{{"name", layer.name}, {"signature", layer.signature}};
  if (layer.kind != kHostKind) json["device"] = layer.kind;
  json["misfit"] = layer.misfit;
  json["samples"] = Json::array();
  for (const LayerSample& sample : layer.samples) json["samples"].push_back(json_of(sample));
  return json;
}

Json json_of(const HandCosts& costs) {
  Json json = Json::object();
  if (costs.rows > 0) json["rows"] = costs.rows;
  for (const auto& [key, number] : costs.numbers) json[key] = number;
  return json;
}

/// Of a kind of device, or of every one.
Json costs_json(const Profile& profile, const std::string& kind) {
  Json json = Json::object();
  for (const HandCosts& costs : profile.costs)
    if (costs.kind == kind && !json.contains(costs.pattern))
      json[costs.pattern] = json_of(costs);  // the first one counts
  return json;
}

Json devices_json(const Profile& profile) {
  Json json = Json::object();
  for (const ProfiledDevice& device : profile.devices) {
    if (json.contains(device.kind)) continue;
    json[device.kind] = Json::object();
    if (device.memory_bytes > 0) json[device.kind]["memory"] = static_cast<std::int64_t>(device.memory_bytes);
    if (Json costs = costs_json(profile, device.kind); !costs.empty()) json[device.kind]["costs"] = std::move(costs);
  }
  return json;
}

Json json_of(const ProfiledWorker& worker) {
  Json json{{"speed", worker.speed}, {"rank", worker.place.rank}, {"host", worker.place.host}};
  if (!worker.kind.empty()) json["device"] = worker.kind;
  for (const auto& [name, kind] : worker.devices) json["devices"][name] = kind;
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
  if (Json costs = costs_json(profile, ""); !costs.empty()) json["costs"] = std::move(costs);
  if (!profile.devices.empty()) json["devices"] = devices_json(profile);
  for (const LinkClass& link : link_classes())
    if (const bool given = contains(profile.given_links, link.key); given || !link.copies || !profile.devices.empty())
      json["links"][link.key] = json_of(profile.links.*link.member, !given);
  for (const auto& [kind, rate] : profile.added_bytes_per_us)
    json["adding"][kind]["gigabytes_per_s"] = rate / kBytesPerUsPerGigabyte;
  json["workers"] = Json::array();
  for (const ProfiledWorker& worker : profile.workers) json["workers"].push_back(json_of(worker));
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
  layer.kind = section.get("device", layer.kind, not_empty());
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
  std::set<std::pair<std::string, std::string>> seen;
  for (const Section& section : root.sections("layers")) {
    layers.push_back(read_layer(section));
    const auto& [kind, signature] = *seen.emplace(layers.back().kind, layers.back().signature).first;
    if (seen.size() < layers.size())
      throw section.error(
          "signature", concat("got ", signature, kind == kHostKind ? "" : " on " + kind, " twice, expected it once"));
  }
  return layers;
}

HandCosts read_costs(const Section& section, const std::string& pattern, const std::string& kind) {
  HandCosts costs;
  costs.pattern = pattern;
  costs.kind = kind;
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

void read_all_costs(const Section& costs, const std::string& kind, Profile& profile) {
  for (const std::string& pattern : costs.keys())
    profile.costs.push_back(read_costs(costs.section(pattern), pattern, kind));
}

void read_devices(const Section& devices, Profile& profile) {
  const Rule<std::string> size{size_rule(), [](const std::string& text) { return parse_size(text).value_or(0) > 0; }};
  for (const std::string& kind : devices.keys()) {
    const Section section = devices.section(kind);
    ProfiledDevice& device = profile.devices.emplace_back(ProfiledDevice{kind});
    if (section.has("memory"))
      device.memory_bytes = static_cast<double>(*parse_size(section.get<std::string>("memory", size)));
    read_all_costs(section.section("costs"), kind, profile);
    section.finish();
  }
}

void read_links(const Section& links, Profile& profile) {
  for (const LinkClass& link : link_classes()) {
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

void read_adding(const Section& adding, Profile& profile) {
  for (const std::string& kind : adding.keys()) {
    const Section section = adding.section(kind);
    profile.added_bytes_per_us[kind] = section.get<double>("gigabytes_per_s", above(0.0)) * kBytesPerUsPerGigabyte;
    section.finish();
  }
}

std::vector<ProfiledWorker> read_workers(const Section& root) {
  constexpr int most = 1 << 20;
  std::vector<ProfiledWorker> workers;
  for (const Section& section : root.sections("workers")) {
    const int count = section.get<int>("count", 1, between(1, most));
    const double speed = section.get<double>("speed", 1.0, above(0.0));
    const int rank = section.get<int>("rank", static_cast<int>(workers.size()), between(0, most));
    const int host = section.get<int>("host", 0, between(0, most));
    ProfiledWorker worker{speed, {rank, host}};
    worker.kind = section.get("device", worker.kind, not_empty());
    const Section devices = section.section("devices");
    for (const std::string& name : devices.keys())
      worker.devices.emplace_back(name, devices.get<std::string>(name, not_empty()));
    section.finish();
    for (int i = 0; i < count; ++i, ++worker.place.rank) workers.push_back(worker);
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
  read_all_costs(root.section("costs"), "", profile);
  read_devices(root.section("devices"), profile);
  read_links(root.section("links"), profile);
  read_adding(root.section("adding"), profile);
  profile.workers = read_workers(root);
  root.finish();
  return profile;
}

Profile load_profile(const std::string& path) {
  return read_profile(load_config_file(path));
}

}  // namespace lockstep
