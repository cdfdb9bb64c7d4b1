// SPDX-License-Identifier: Apache-2.0
//
// A model family in a shared library, for the command: lockstep train examples/plugin/wave.yaml
// (docs/cpp_api.md, "For the command".)
#include <ATen/ATen.h>

#include "models/plugin.hpp"
#include "runtime/layer/layers.hpp"

namespace {

using namespace lockstep;

// x -> x + scale * sin(x), with one learned scale per column.
class Wave : public Layer {
 public:
  explicit Wave(std::int64_t width) : width_(width) {}
  std::string type() const override { return "wave"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], width_);
    LayerDescription description;
    description.parameters = {{"scale", {width_}, Init::normal(0.1), ""}};
    description.outputs = {inputs[0]};
    return description;
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {inputs[0] + context.leaf("scale") * at::sin(inputs[0])};
  }

 private:
  std::int64_t width_;
};

Model make_wave(const Section& section) {
  const auto width = section.get<std::int64_t>("width", at_least<std::int64_t>(1));
  const auto layers = section.get<int>("layers", 4, at_least(1));
  Model model{"wave", {}};
  model.layers.push_back({"in", std::make_shared<Linear>(section.get<int>("inputs", at_least(1)), width)});
  for (int i = 0; i < layers; ++i) model.layers.push_back({concat("wave.", i), std::make_shared<Wave>(width)});
  model.layers.push_back({"out", std::make_shared<Linear>(width, section.get<int>("outputs", at_least(1)))});
  return model;
}

}  // namespace

LOCKSTEP_MODELS({"wave", "linear layers around learned sines", make_wave})
