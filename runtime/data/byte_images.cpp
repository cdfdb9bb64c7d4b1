// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/byte_images.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/data/table_dataset.hpp"

namespace lockstep {
namespace {

/// Where a pixel of what is put out comes from: so many rows down and columns to the right, in the mirror or not.
struct View {
  std::int64_t down = 0, right = 0;
  bool mirrored = false;
};

class ByteImageDataset : public Dataset {
 public:
  ByteImageDataset(std::shared_ptr<const ByteImages> images, ByteImageOptions options)
      : images_(std::move(images)), options_(std::move(options)) {
    LOCKSTEP_CHECK(!images_->labels.empty(), "no images");
    LOCKSTEP_CHECK(static_cast<std::int64_t>(options_.values.size()) == images_->channels, "values of other channels");
    if (options_.classes == 0) options_.classes = *std::max_element(images_->labels.begin(), images_->labels.end()) + 1;
  }

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const std::vector<std::int64_t> sizes = {images_->channels, images_->height, images_->width};
    return data_entries(rows, {at::kFloat, options_.flat ? std::vector{pixels()} : sizes},
                        {at::kLong, {}, options_.classes});
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(images_->labels.size()); }
  bool reads_in_parallel() const override { return true; }
  std::vector<std::int64_t> classes() const override { return {images_->labels.begin(), images_->labels.end()}; }
  Tensors read(const std::vector<std::int64_t>& samples) const override { return views(samples, {}); }

  Tensors draw(const std::vector<std::int64_t>& samples, std::int64_t first) const override {
    std::vector<View> drawn;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      RandomStream random = augmentation(options_.seed, first + static_cast<std::int64_t>(i));
      View& view = drawn.emplace_back();
      const auto shift = [&] {
        return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(2 * options_.padding + 1))) -
               options_.padding;
      };
      if (options_.padding > 0) {
        view.down = shift();
        view.right = shift();
      }
      view.mirrored = options_.flip > 0 && random.uniform() < options_.flip;
    }
    return views(samples, drawn);
  }

  std::string place_of(std::int64_t sample) const override {
    const std::size_t part = part_of(sample);
    return concat(images_->files[part].path(), ": image ", sample - images_->parts[part].begin);
  }

 private:
  std::int64_t pixels() const { return images_->channels * images_->height * images_->width; }

  std::size_t part_of(std::int64_t sample) const {
    LOCKSTEP_CHECK(sample >= 0 && sample < size(), "sample ", sample, " of ", size());
    const auto& parts = images_->parts;
    const auto behind = std::upper_bound(parts.begin(), parts.end(), sample,
                                         [](std::int64_t at, const ByteImages::Part& part) { return at < part.begin; });
    return static_cast<std::size_t>(behind - parts.begin()) - 1;
  }

  Tensors views(const std::vector<std::int64_t>& samples, const std::vector<View>& drawn) const {
    const std::vector<EntrySpec> specs = entries(static_cast<std::int64_t>(samples.size()));
    Tensors result = {at::empty(specs[0].sizes, at::kFloat), at::empty(specs[1].sizes, at::kLong)};
    auto* x = result[0].mutable_data_ptr<float>();
    auto* targets = result[1].mutable_data_ptr<std::int64_t>();
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::size_t file = part_of(samples[i]);
      const ByteImages::Part& part = images_->parts[file];
      const auto at = part.first + static_cast<std::size_t>(samples[i] - part.begin) * part.stride;
      const auto* image = reinterpret_cast<const std::uint8_t*>(images_->files[file].bytes().data()) + at;
      for (std::int64_t channel = 0; channel < images_->channels; ++channel)
        put(image + channel * images_->height * images_->width, options_.values[static_cast<std::size_t>(channel)],
            drawn.empty() ? View() : drawn[i], x + channel * images_->height * images_->width);
      images_->files.seen(part.stride);
      targets[i] = images_->labels[static_cast<std::size_t>(samples[i])];
      x += pixels();
    }
    return result;
  }

  /// One channel of one image.
  void put(const std::uint8_t* from, const std::array<float, 256>& values, const View& view, float* to) const {
    const std::int64_t height = images_->height, width = images_->width;
    for (std::int64_t row = 0; row < height; ++row, to += width) {
      const std::int64_t y = row + view.down;
      std::fill(to, to + width, values[0]);
      if (y < 0 || y >= height) continue;
      // Columns of the image that stay in the picture.
      for (std::int64_t x = std::max<std::int64_t>(view.right, 0); x < width + std::min<std::int64_t>(view.right, 0);
           ++x) {
        const std::int64_t column = x - view.right;
        to[view.mirrored ? width - 1 - column : column] = values[from[y * width + x]];
      }
    }
  }

  std::shared_ptr<const ByteImages> images_;
  ByteImageOptions options_;
};

}  // namespace

ByteImageOptions read_byte_image_options(const Section& section, int channels, std::uint64_t seed) {
  ByteImageOptions options;
  options.values = read_pixel_values(section, channels);
  options.seed = seed;
  const Section augment = section.section("augment");
  options.padding = augment.get<int>("padding", 0, between(0, 1 << 12));
  options.flip = read_flip(augment);
  augment.finish();
  return options;
}

std::shared_ptr<const Dataset> byte_image_dataset(std::shared_ptr<const ByteImages> images,
                                                  const ByteImageOptions& options) {
  return std::make_shared<ByteImageDataset>(std::move(images), options);
}

}  // namespace lockstep
