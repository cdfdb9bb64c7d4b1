// SPDX-License-Identifier: Apache-2.0
//
// A small ResNet (He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016) for images [rows, inputs,
// height, width]: a 3x3 stem, `depth` levels of `blocks` residual blocks, the mean over all positions, a linear layer
// to the classes. Every level but the first halves the image and doubles the channels.
//
//   "x" -> conv1 -> norm1 -> act1 -> conv2 -> norm2 -> "h" -> add -> act -> "x"        a block, level.block before
//   names
//      \-> (down, down_norm where sizes change) -> "x" --------/
#include "models/convolutional.hpp"
#include "models/registry.hpp"
#include "runtime/layer/image_layers.hpp"

namespace lockstep {
namespace {

void add_block(Model& model, const std::string& prefix, std::int64_t in, std::int64_t out, std::int64_t stride,
               const NormChoice& norm) {
  add_unit(model, {prefix, "1", in, out, stride, "x", "h", true}, norm);
  add_unit(model, {prefix, "2", out, out, 1, "h", "h", false}, norm);
  if (in != out || stride != 1) {
    ConvolutionOptions options;
    options.stride = {stride};
    options.bias = norm.none();
    model.layers.push_back({prefix + "down", std::make_shared<Conv2d>(in, out, Extent{1}, options)});
    norm.add(model, prefix + "down_norm", out, "x");
  }
  model.layers.push_back({prefix + "add", std::make_shared<Add>(), {"h", "x"}, {"x"}});
  model.layers.push_back({prefix + "act", std::make_shared<Activation>("relu")});
}

}  // namespace

Model make_cnn(const Section& section) {
  const auto positive = at_least<std::int64_t>(1);
  const auto inputs = section.get<std::int64_t>("inputs", positive);
  const auto classes = section.get<std::int64_t>("classes", positive);
  auto channels = section.get<std::int64_t>("channels", 16, between<std::int64_t>(1, 1 << 20));
  const auto depth = section.get<int>("depth", 3, between(1, 8));
  const auto blocks = section.get<int>("blocks", 1, at_least(1));
  const NormChoice norm = NormChoice::read(section, channels);

  Model model{"cnn", {}};
  add_unit(model, {"stem.", "", inputs, channels, 1, "x", "x", true}, norm);
  for (int level = 0; level < depth; ++level)
    for (int block = 0; block < blocks; ++block) {
      const bool shrinks = level > 0 && block == 0;
      const std::int64_t out = shrinks ? 2 * channels : channels;
      add_block(model, concat(level, ".", block, "."), channels, out, shrinks ? 2 : 1, norm);
      channels = out;
    }
  model.layers.push_back({"pool", std::make_shared<GlobalAvgPool>()});
  model.layers.push_back({"out", std::make_shared<Linear>(channels, classes)});
  return model;
}

}  // namespace lockstep
