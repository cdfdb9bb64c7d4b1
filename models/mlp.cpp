// SPDX-License-Identifier: Apache-2.0
#include "models/registry.hpp"
#include "runtime/layer/layers.hpp"

namespace lockstep {

// linear -> activation [-> dropout], `hidden` times, then a linear layer to the outputs: names fc.0, act.0, drop.0, ...
Model make_mlp(const Section& section, const ModelTables& tables) {
  const auto size = between<std::int64_t>(1, kMostSize);
  const auto inputs = section.get<std::int64_t>("inputs", size);
  const auto width = section.get<std::int64_t>("width", size);
  const auto hidden = section.get<int>("layers", 2, between(0, kMostLayers));
  const auto outputs = section.get<std::int64_t>("outputs", size);
  const auto activation = section.get<std::string>("activation", "relu", one_of(tables.activations.names()));
  const auto dropout = section.get<double>("dropout", 0.0, fraction_below_one());

  Model model{"mlp", {}};
  std::int64_t in = inputs;
  for (int i = 0; i < hidden; ++i, in = width) {
    model.layers.push_back({concat("fc.", i), std::make_shared<Linear>(in, width)});
    model.layers.push_back({concat("act.", i), std::make_shared<Activation>(tables.activations.get(activation))});
    if (dropout > 0) model.layers.push_back({concat("drop.", i), std::make_shared<Dropout>(dropout)});
  }
  model.layers.push_back({"out", std::make_shared<Linear>(in, outputs)});
  return model;
}

}  // namespace lockstep
