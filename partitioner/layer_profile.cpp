// SPDX-License-Identifier: Apache-2.0
//
// What a profile says of a layer.
#include <fnmatch.h>

#include <algorithm>
#include <cmath>

#include "partitioner/profile_file.hpp"
#include "runtime/base/check.hpp"

namespace lockstep {

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

constexpr int kTimesOfLayer = 3;  // the first fields: what a layer by hand has to have

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

/// " on cuda NVIDIA H100 80GB HBM3"; nothing of the host, where everything is that says no other place.
std::string on(const std::string& kind) {
  return kind == kHostKind ? "" : " on " + kind;
}

/// Nothing was measured: the times have to be there.
void check_times(const HandCosts& hand, const std::string& layer, const std::string& kind) {
  for (int i = 0; i < kTimesOfLayer; ++i) {
    const std::string wanted = layer_cost_fields()[i].by_hand;
    const auto given = [&](const auto& entry) { return entry.first == wanted; };
    if (std::none_of(hand.numbers.begin(), hand.numbers.end(), given))
      throw ConfigError(
          hand.at, "costs." + hand.pattern,
          concat("got no ", wanted, ", expected forward_ms, input_grad_ms and weight_grad_ms: layer '", layer,
                 "' was not measured", on(kind), "; write all three, or measure: lockstep profile CONFIG"));
  }
}

/// The first of the layer that is of this kind, else of any.
const HandCosts* by_hand(const Profile& profile, const std::string& layer, const std::string& kind) {
  for (const bool own : {true, false})
    for (const HandCosts& costs : profile.costs) {
      if (own ? costs.kind.empty() || !matches_kind(costs.kind, kind) : !costs.kind.empty()) continue;
      if (fnmatch(costs.pattern.c_str(), layer.c_str(), 0) == 0) return &costs;
    }
  return nullptr;
}

[[noreturn]] void refuse_kind(const Profile& profile, const std::string& layer, const std::string& kind,
                              const std::string& measured_on) {
  throw UserError(concat(profile.file.empty() ? "the profile" : profile.file, ": got no cost of layer '", layer,
                         "' on ", kind, ", only on ", measured_on,
                         "; measure it there: lockstep profile CONFIG -o profile.json, with a config whose ",
                         "workers.devices names such a device, or write costs by hand under devices: {",
                         kind.substr(0, kind.find(' ')), ": {costs: ...}}"));
}

}  // namespace

bool matches_kind(const std::string& pattern, const std::string& kind) {
  const std::string type = kind.substr(0, kind.find(' '));
  return fnmatch(pattern.c_str(), kind.c_str(), 0) == 0 || fnmatch(pattern.c_str(), type.c_str(), 0) == 0;
}

double add_us_per_byte_of(const Profile& profile, const std::string& kind) {
  for (const auto& [pattern, rate] : profile.added_bytes_per_us)
    if (matches_kind(pattern, kind)) return 1 / rate;
  return 0;
}

double memory_bytes_of(const Profile& profile, const std::string& kind) {
  for (const ProfiledDevice& device : profile.devices)
    if (device.memory_bytes > 0 && matches_kind(device.kind, kind)) return device.memory_bytes;
  return 0;
}

LayerProfile profile_of_layer(const Profile& profile, const std::string& layer, const std::string& signature,
                              const std::string& kind) {
  const LayerProfile* measured = nullptr;
  std::string others;
  for (const LayerProfile& entry : profile.layers) {
    if (entry.signature != signature) continue;
    if (entry.kind == kind)
      measured = &entry;
    else
      others += (others.empty() ? "" : ", ") + entry.kind;
  }
  const HandCosts* hand = by_hand(profile, layer, kind);
  if (!measured && !hand && !others.empty()) refuse_kind(profile, layer, kind, others);
  if (!measured && !hand)
    throw UserError(concat(profile.file.empty() ? "the profile" : profile.file, ": got no cost of layer '", layer,
                           "' (", signature, "): it is of another model",
                           profile.model.empty() ? "" : concat(" than ", profile.model),
                           ", or the layer's options, shapes or dtypes have changed since; measure again: lockstep "
                           "profile CONFIG -o ",
                           profile.file.empty() ? "profile.json" : profile.file));
  LayerProfile result;
  if (measured) {
    result = *measured;
    result.rows_untold = result.samples.size() == 1;
  } else {
    check_times(*hand, layer, kind);
    result.samples.emplace_back().rows = hand->rows;
  }
  result.name = layer;
  result.kind = kind;
  if (hand)
    for (LayerSample& sample : result.samples) put_in_place(*hand, sample, result);
  return result;
}

}  // namespace lockstep
