// SPDX-License-Identifier: Apache-2.0
#include "models/convolutional.hpp"

#include "runtime/layer/norms.hpp"

namespace lockstep {

NormChoice NormChoice::read(const Section& section, std::int64_t channels) {
  NormChoice choice;
  choice.norm = section.get<std::string>("norm", choice.norm, one_of({"batch", "group", "none"}));
  if (choice.norm != "group") return choice;
  choice.groups = section.get<std::int64_t>("groups", choice.groups, at_least<std::int64_t>(1));
  if (channels % choice.groups != 0)
    throw section.error("groups", concat("got ", choice.groups, ", which does not divide the ", channels,
                                         " channels; every group takes an equal share of the channels"));
  return choice;
}

void NormChoice::add(Model& model, const std::string& name, std::int64_t channels, const std::string& entry) const {
  if (norm == "batch") model.layers.push_back({name, std::make_shared<BatchNorm>(channels), {entry}, {entry}});
  if (norm == "group") model.layers.push_back({name, std::make_shared<GroupNorm>(groups, channels), {entry}, {entry}});
}

void add_unit(Model& model, const ConvolutionUnit& unit, const NormChoice& norm) {
  ConvolutionOptions options;
  options.stride = {unit.stride};
  options.padding = {1};
  options.bias = norm.none();
  const auto name = [&](const char* part) { return unit.prefix + part + unit.suffix; };
  model.layers.push_back(
      {name("conv"), std::make_shared<Conv2d>(unit.in, unit.out, Extent{3}, options), {unit.from}, {unit.to}});
  norm.add(model, name("norm"), unit.out, unit.to);
  if (unit.act) model.layers.push_back({name("act"), std::make_shared<Activation>("relu"), {unit.to}, {unit.to}});
}

}  // namespace lockstep
