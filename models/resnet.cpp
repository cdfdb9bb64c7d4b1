// SPDX-License-Identifier: Apache-2.0
//
// ResNet (He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016) with the names, layouts and
// initial values of torchvision.models: resnet18, 34 of basic blocks, 50, 101, 152 of bottlenecks whose 3x3 convolution
// has the stride ("ResNet V1.5").
//
//   "x" -> conv1 -> bn1 -> relu1 -> conv2 -> bn2 [-> relu2 -> conv3 -> bn3] -> "h" -> add -> relu -> "x"
//      \-> (downsample.0, downsample.1 where sizes change) -> "x" ----------------------/
#include <cmath>

#include "models/registry.hpp"
#include "runtime/layer/norms.hpp"

namespace lockstep {
namespace {

struct Depth {
  int layers;
  bool bottleneck;
  std::array<int, 4> blocks;  // of each group
};
constexpr std::array<Depth, 5> kDepths = {{{18, false, {2, 2, 2, 2}},
                                           {34, false, {3, 4, 6, 3}},
                                           {50, true, {3, 4, 6, 3}},
                                           {101, true, {3, 4, 23, 3}},
                                           {152, true, {3, 8, 36, 3}}}};
constexpr std::int64_t kExpansion = 4;  // of a bottleneck: channels out by inner ones

class ResNet {
 public:
  ResNet(const Depth& depth, std::int64_t channels) : depth_(depth), stem_(channels), channels_(channels) {}

  void stem(std::int64_t inputs, bool small) {
    convolution("conv1", "bn1", {inputs, stem_, small ? 3 : 7, small ? 1 : 2}, "x", "x");
    relu("relu", "x");
    if (!small) model_.layers.push_back({"maxpool", std::make_shared<MaxPool2d>(3, 2, 1)});
  }

  void groups() {
    for (std::size_t group = 0; group < depth_.blocks.size(); ++group)
      for (int number = 0; number < depth_.blocks[group]; ++number)
        block(concat("layer", group + 1, ".", number, "."), stem_ << group, group > 0 && number == 0 ? 2 : 1);
  }

  Model end(std::int64_t classes) {
    model_.layers.push_back({"avgpool", std::make_shared<GlobalAvgPool>()});
    model_.layers.push_back({"fc", std::make_shared<Linear>(channels_, classes)});
    return std::move(model_);
  }

 private:
  struct Convolved {
    std::int64_t in, out, kernel, stride;
  };

  void convolution(const std::string& name, const std::string& norm, const Convolved& sizes, const std::string& from,
                   const std::string& to) {
    ConvolutionOptions options;
    options.stride = {sizes.stride};
    options.padding = {sizes.kernel / 2};
    options.bias = false;
    // He, Zhang, Ren, Sun, "Delving Deep into Rectifiers" (2015), by the outputs.
    const auto fan_out = static_cast<double>(sizes.out * sizes.kernel * sizes.kernel);
    options.weight_init = Init::normal(std::sqrt(2.0 / fan_out));
    model_.layers.push_back(
        {name, std::make_shared<Conv2d>(sizes.in, sizes.out, Extent{sizes.kernel}, options), {from}, {to}});
    model_.layers.push_back({norm, std::make_shared<BatchNorm>(sizes.out), {to}, {to}});
  }

  void relu(const std::string& name, const std::string& entry) {
    model_.layers.push_back({name, std::make_shared<Activation>("relu"), {entry}, {entry}});
  }

  void block(const std::string& prefix, std::int64_t inner, std::int64_t stride) {
    const std::int64_t out = depth_.bottleneck ? kExpansion * inner : inner;
    const auto name = [&](const char* what, int number) { return concat(prefix, what, number); };
    const auto unit = [&](int number, const Convolved& sizes) {
      convolution(name("conv", number), name("bn", number), sizes, number == 1 ? "x" : "h", "h");
    };
    if (depth_.bottleneck) {
      unit(1, {channels_, inner, 1, 1});
      relu(name("relu", 1), "h");
      unit(2, {inner, inner, 3, stride});
      relu(name("relu", 2), "h");
      unit(3, {inner, out, 1, 1});
    } else {
      unit(1, {channels_, inner, 3, stride});
      relu(name("relu", 1), "h");
      unit(2, {inner, out, 3, 1});
    }
    if (stride != 1 || channels_ != out)
      convolution(prefix + "downsample.0", prefix + "downsample.1", {channels_, out, 1, stride}, "x", "x");
    model_.layers.push_back({prefix + "add", std::make_shared<Add>(), {"h", "x"}, {"x"}});
    relu(prefix + "relu", "x");
    channels_ = out;
  }

  const Depth& depth_;
  std::int64_t stem_, channels_;  // before the groups; here
  Model model_{"resnet", {}};
};

}  // namespace

Model make_resnet(const Section& section) {
  std::vector<std::string> depths;
  for (const Depth& depth : kDepths) depths.push_back(std::to_string(depth.layers));
  const auto wanted = section.get<int>("depth");
  const auto* const depth =
      std::find_if(kDepths.begin(), kDepths.end(), [&](const Depth& each) { return each.layers == wanted; });
  if (depth == kDepths.end()) throw section.unexpected("depth", "one of " + join(depths));
  const auto positive = between<std::int64_t>(1, kMostSize);
  const auto inputs = section.get<std::int64_t>("inputs", 3, positive);
  const auto classes = section.get<std::int64_t>("classes", positive);
  const auto stem = section.get<std::string>("stem", "imagenet", one_of({"imagenet", "small"}));
  const auto channels = section.get<std::int64_t>("channels", 64, between<std::int64_t>(1, 1 << 16));
  ResNet network(*depth, channels);
  network.stem(inputs, stem == "small");
  network.groups();
  return network.end(classes);
}

}  // namespace lockstep
