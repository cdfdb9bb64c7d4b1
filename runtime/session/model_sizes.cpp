// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/model_sizes.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "runtime/config/field.hpp"

namespace lockstep {
namespace {

constexpr std::array<std::string_view, 4> kKeys = {"inputs", "outputs", "classes", "vocab"};
constexpr const char* kAuto = "auto";
constexpr std::size_t kImageDimensions = 4;

bool is_auto(const Section& model, const std::string& key) {
  return model.is_scalar(key) && model.text(key) == kAuto;
}

/// The largest `below` of an entry over all sets; 0: one of them does not know.
std::int64_t below(const DataSplits& data, bool targets) {
  const auto of = [&](const Dataset& set) {
    const std::vector<EntrySpec> entries = set.entries(1);
    return (targets ? entries.back() : entries.front()).below;
  };
  std::int64_t most = of(*data.train);
  for (int set = 0; set < evaluation_sets(data) && most > 0; ++set)
    most = of(evaluation_set(data, set)) == 0 ? 0 : std::max(most, of(evaluation_set(data, set)));
  return most;
}

/// 0: the data does not say.
std::int64_t size_of(std::string_view key, const DataSplits& data) {
  const std::vector<EntrySpec> entries = data.train->entries(1);
  const EntrySpec &x = entries.front(), &targets = entries.back();
  if (key == "inputs") {
    if (x.dtype == at::kLong || x.sizes.size() < 2) return 0;
    return x.sizes.size() == kImageDimensions ? x.sizes[1] : x.sizes.back();
  }
  if (key == "vocab") return x.dtype == at::kLong ? below(data, /*targets=*/false) : 0;
  if (targets.dtype != at::kLong) return targets.sizes.size() == 2 ? targets.sizes.back() : 0;
  const auto named = static_cast<std::int64_t>(data.class_names.size());
  return named > 0 ? named : below(data, /*targets=*/true);
}

Section with_size(const Section& model, const std::string& key, const std::string& size) {
  yaml::Value value = scalar_value(size);
  value.at = model.value().find(key)->at;
  return model.overlaid(yaml::root_section(std::make_shared<const yaml::Value>(mapping_value(key, std::move(value)))));
}

}  // namespace

bool leaves_sizes(const Section& model) {
  return std::any_of(kKeys.begin(), kKeys.end(),
                     [&](std::string_view key) { return is_auto(model, std::string(key)); });
}

Section with_sizes(const Section& model, const DataSplits& data) {
  Section sized = model;
  for (const std::string_view key : kKeys) {
    const std::string name(key);
    if (!is_auto(model, name)) continue;
    const std::int64_t size = size_of(key, data);
    if (size == 0)
      throw model.error(
          name, concat("got auto, but the data does not say it: it has ", to_string(data.train->entries(1).front()),
                       " and ", to_string(data.train->entries(1).back()), "; write the number"));
    sized = with_size(sized, name, concat(size));
  }
  return sized;
}

Section with_sizes(const Section& model, const TrainedOn& trained) {
  Section sized = model;
  for (const auto& [key, size] : trained.model_sizes)
    if (is_auto(model, key)) sized = with_size(sized, key, size);
  return sized;
}

}  // namespace lockstep
