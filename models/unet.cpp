// SPDX-License-Identifier: Apache-2.0
//
// U-Net (Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015), padded
// so that the output has the size of the image: [rows, inputs, height, width] -> [rows, classes, height, width]. The
// sizes are divisible by 2^depth.
//
//   "x" -> enc.0 -> "skip.0" -> pool -> enc.1 -> "skip.1" -> pool -> bottom -> up -> join -> dec.1 -> up -> join ->
//   dec.0 -> out
//                       \                            \--------------------------------/                     /
//                        \---------------------------------------------------------------------------------/
//
// A skip goes straight from the worker of its encoder to that of its decoder. With deep_supervision every decoder level
// but the last has a head of its own (Lee et al., "Deeply-Supervised Nets", 2015): a 1x1 convolution to the classes,
// enlarged to the size of the image, compared with the same targets, weighted by auxiliary_weight.
#include "models/convolutional.hpp"
#include "models/registry.hpp"
#include "runtime/layer/image_layers.hpp"

namespace lockstep {
namespace {

struct UnetSizes {
  std::int64_t inputs = 0, channels = 0, classes = 0;
  int depth = 0;
  bool transposed = true;
  NormChoice norm;

  std::int64_t at(int level) const { return channels << level; }
};

void add_two(Model& model, const std::string& prefix, std::int64_t in, std::int64_t out, const NormChoice& norm) {
  add_unit(model, {prefix, "1", in, out}, norm);
  add_unit(model, {prefix, "2", out, out}, norm);
}

void add_encoder(Model& model, const UnetSizes& sizes) {
  std::int64_t in = sizes.inputs;
  for (int level = 0; level < sizes.depth; ++level) {
    const std::string skip = concat("skip.", level);
    add_two(model, concat("enc.", level, "."), in, sizes.at(level), sizes.norm);
    model.layers.back().outputs = {skip};
    model.layers.push_back({concat("pool.", level), std::make_shared<MaxPool2d>(2), {skip}, {"x"}});
    in = sizes.at(level);
  }
  add_two(model, "bottom.", in, sizes.at(sizes.depth), sizes.norm);
}

// To half the channels and twice the size.
void add_up(Model& model, const UnetSizes& sizes, int level) {
  const std::int64_t in = sizes.at(level + 1), out = sizes.at(level);
  const std::string name = concat("up.", level);
  if (sizes.transposed) {
    ConvolutionOptions options;
    options.stride = {2};
    model.layers.push_back({name, std::make_shared<ConvTranspose2d>(in, out, Extent{2}, options)});
    return;
  }
  model.layers.push_back({name, std::make_shared<Upsample>(2)});
  model.layers.push_back({name + ".conv", std::make_shared<Conv2d>(in, out, Extent{1})});
}

void add_auxiliary_head(Model& model, const UnetSizes& sizes, int level, double weight) {
  const std::string entry = concat("aux.", level);
  model.layers.push_back({entry, std::make_shared<Conv2d>(sizes.at(level), sizes.classes, Extent{1}), {"x"}, {entry}});
  model.layers.push_back({entry + ".up", std::make_shared<Upsample>(std::int64_t{1} << level), {entry}, {entry}});
  Head head;
  head.output = entry;
  head.weight = weight;
  model.heads.push_back(std::move(head));
}

}  // namespace

Model make_unet(const Section& section) {
  const auto positive = at_least<std::int64_t>(1);
  UnetSizes sizes;
  sizes.inputs = section.get<std::int64_t>("inputs", positive);
  sizes.classes = section.get<std::int64_t>("classes", positive);
  sizes.channels = section.get<std::int64_t>("channels", 16, between<std::int64_t>(1, 1 << 20));
  sizes.depth = section.get<int>("depth", 2, between(1, 8));
  sizes.transposed = section.get<std::string>("up", "transposed", one_of({"transposed", "nearest"})) == "transposed";
  sizes.norm = NormChoice::read(section, sizes.channels);
  const auto supervised = section.get<bool>("deep_supervision", false);
  const double weight = supervised ? section.get<double>("auxiliary_weight", 0.5, above(0.0)) : 0.0;

  Model model{"unet", {}};
  add_encoder(model, sizes);
  for (int level = sizes.depth - 1; level >= 0; --level) {
    add_up(model, sizes, level);
    model.layers.push_back({concat("join.", level), std::make_shared<Concat>(), {"x", concat("skip.", level)}, {"x"}});
    add_two(model, concat("dec.", level, "."), 2 * sizes.at(level), sizes.at(level), sizes.norm);
    if (supervised && level > 0) add_auxiliary_head(model, sizes, level, weight);
  }
  model.layers.push_back({"out", std::make_shared<Conv2d>(sizes.channels, sizes.classes, Extent{1})});
  return model;
}

}  // namespace lockstep
