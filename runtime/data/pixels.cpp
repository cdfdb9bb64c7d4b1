// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/pixels.hpp"

#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

/// One number for each channel.
std::vector<double> read_by_channel(const Section& section, const std::string& key, double otherwise, int channels,
                                    const std::vector<double>& imagenet, const Rule<double>& rule) {
  const auto count = static_cast<std::size_t>(channels);
  if (!section.has(key)) return std::vector<double>(count, otherwise);
  if (section.is_sequence(key)) {
    auto list = section.list<double>(key, rule);
    if (list.size() != count) throw section.unexpected(key, concat("a number, or a list of ", channels));
    return list;
  }
  if (section.is_scalar(key) && section.get<std::string>(key) == "imagenet") {
    if (channels != 3)
      throw section.error(key, concat("got imagenet, which has 3 channels; these images have ", channels));
    return imagenet;
  }
  return std::vector<double>(count, section.get<double>(key, rule));
}

}  // namespace

PixelValues read_pixel_values(const Section& section, int channels) {
  // As torchvision's models were trained; torchvision.transforms' documentation has them.
  const auto mean = read_by_channel(section, "mean", 0, channels, {0.485, 0.456, 0.406}, between(-1e6, 1e6));
  const auto deviation = read_by_channel(section, "std", 1, channels, {0.229, 0.224, 0.225}, between(1e-6, 1e6));
  PixelValues values(static_cast<std::size_t>(channels));
  for (std::size_t channel = 0; channel < values.size(); ++channel)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const float share = static_cast<float>(byte) / 255.0f;
      values[channel][byte] = (share - static_cast<float>(mean[channel])) / static_cast<float>(deviation[channel]);
    }
  return values;
}

RandomStream augmentation(std::uint64_t seed, std::int64_t drawn) {
  return RandomStream(mix_seed(seed, static_cast<std::uint64_t>(drawn), 0, "data.augment"));
}

double read_flip(const Section& augment) {
  return augment.get<double>("flip", 0.0, between(0.0, 1.0));
}

}  // namespace lockstep
