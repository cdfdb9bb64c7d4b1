// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/image_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace lockstep {
namespace {

constexpr int kBits = 22;  // of a weight, as in Pillow's Resample.c: 8 bits of a byte and 2 to spare make 32
constexpr std::int32_t kHalf = 1 << (kBits - 1);

/// What the pixels of one axis are made of, for a window of what is put out.
class Axis {
 public:
  Axis(int in, int out, int window, int size) : copied_(in == out) {
    const double scale = static_cast<double>(in) / out, reach = std::max(scale, 1.0);
    for (int i = window; i < window + size; ++i) {
      if (copied_) {
        spans_.push_back({i, 1, 0});
        continue;
      }
      const double centre = (i + 0.5) * scale;
      const int first = std::max(static_cast<int>(centre - reach + 0.5), 0);
      const int behind = std::min(static_cast<int>(centre + reach + 0.5), in);
      spans_.push_back({first, behind - first, weights_.size()});
      append(first, behind, centre, reach);
    }
  }

  struct Span {
    int first, count;
    std::size_t weights;
  };
  const Span& operator[](int i) const { return spans_[static_cast<std::size_t>(i)]; }
  const std::int32_t* weights(const Span& span) const { return weights_.data() + span.weights; }
  bool copied() const { return copied_; }
  int first() const { return spans_.front().first; }
  int behind() const { return spans_.back().first + spans_.back().count; }

 private:
  void append(int first, int behind, double centre, double reach) {
    triangle_.clear();
    double sum = 0;
    for (int i = first; i < behind; ++i) {
      const double distance = std::abs((i - centre + 0.5) * (1.0 / reach));
      triangle_.push_back(distance < 1 ? 1 - distance : 0);
      sum += triangle_.back();
    }
    for (const double weight : triangle_)
      weights_.push_back(static_cast<std::int32_t>(0.5 + (sum != 0 ? weight / sum : weight) * (1 << kBits)));
  }

  bool copied_;
  std::vector<Span> spans_;
  std::vector<std::int32_t> weights_;
  std::vector<double> triangle_;
};

std::uint8_t byte_of(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

/// One row of `size` pixels out of one of the picture.
template <int channels>
void along_row(const Axis& axis, const std::uint8_t* from, int size, std::uint8_t* to) {
  if (axis.copied()) {
    std::memcpy(to, from + channels * axis.first(), static_cast<std::size_t>(channels * size));
    return;
  }
  for (int i = 0; i < size; ++i, to += channels) {
    const Axis::Span& span = axis[i];
    const std::int32_t* weights = axis.weights(span);
    const std::uint8_t* pixel = from + channels * span.first;
    std::array<std::int32_t, channels> sum;
    sum.fill(kHalf);
    for (int j = 0; j < span.count; ++j, pixel += channels)
      for (std::size_t c = 0; c < channels; ++c) sum[c] += weights[j] * pixel[c];
    for (std::size_t c = 0; c < channels; ++c) to[c] = byte_of(sum[c]);
  }
}

/// One row out of several of them, each of `bytes` bytes.
void along_columns(const Axis& axis, int row, const std::uint8_t* lines, std::vector<std::int32_t>& sums,
                   std::uint8_t* to) {
  const Axis::Span& span = axis[row];
  const std::size_t bytes = sums.size();
  const std::uint8_t* line = lines + static_cast<std::size_t>(span.first - axis.first()) * bytes;
  if (axis.copied()) {
    std::memcpy(to, line, bytes);
    return;
  }
  std::fill(sums.begin(), sums.end(), kHalf);
  for (int j = 0; j < span.count; ++j, line += bytes) {
    const std::int32_t weight = axis.weights(span)[j];
    for (std::size_t i = 0; i < bytes; ++i) sums[i] += weight * line[i];
  }
  for (std::size_t i = 0; i < bytes; ++i) to[i] = byte_of(sums[i]);
}

template <int channels>
void render_as(ImageRows& rows, const ImageView& view, int size, const PixelValues& values, float* to) {
  const Axis across(view.width, view.resized_width, view.window_left, size);
  const Axis down(view.height, view.resized_height, view.window_top, size);
  const auto bytes = static_cast<std::size_t>(size * channels), side = static_cast<std::size_t>(size);
  std::vector<std::uint8_t> whole(static_cast<std::size_t>(rows.width() * channels));
  std::vector<std::uint8_t> lines(static_cast<std::size_t>(down.behind() - down.first()) * bytes);
  for (int row = 0; row < view.top + down.behind(); ++row) {
    rows.next(whole.data());
    if (const int line = row - view.top - down.first(); line >= 0)
      along_row<channels>(across, whole.data() + channels * view.left, size,
                          lines.data() + static_cast<std::size_t>(line) * bytes);
  }
  std::vector<std::int32_t> sums(bytes);
  std::vector<std::uint8_t> line(bytes);
  for (std::size_t row = 0; row < side; ++row) {
    along_columns(down, static_cast<int>(row), lines.data(), sums, line.data());
    for (std::size_t c = 0; c < channels; ++c) {
      float* put = to + (c * side + row) * side;
      for (std::size_t i = 0; i < side; ++i) put[view.mirrored ? side - 1 - i : i] = values[c][line[i * channels + c]];
    }
  }
}

/// Python's round(): halves to the even neighbour.
int rounded(double number) {
  return static_cast<int>(std::nearbyint(number));
}

ImageView whole(int width, int height, int shorter) {
  ImageView view = {.width = width, .height = height, .resized_width = shorter, .resized_height = shorter};
  const auto longer = [&](int a, int b) { return static_cast<int>(std::int64_t{shorter} * a / b); };
  (width <= height ? view.resized_height : view.resized_width) =
      width <= height ? longer(height, width) : longer(width, height);
  return view;
}

int anywhere(RandomStream& random, int places) {
  return static_cast<int>(random.below(static_cast<std::uint64_t>(places)));
}

double between_both(RandomStream& random, double least, double most) {
  return least + (most - least) * random.uniform();
}

}  // namespace

void render(ImageRows& rows, const ImageView& view, int size, const PixelValues& values, float* to) {
  if (rows.channels() == 1)
    render_as<1>(rows, view, size, values, to);
  else
    render_as<3>(rows, view, size, values, to);
}

ImageView centred(int width, int height, int shorter, int size) {
  ImageView view = whole(width, height, shorter);
  view.window_left = rounded((view.resized_width - size) / 2.0);
  view.window_top = rounded((view.resized_height - size) / 2.0);
  return view;
}

ImageView cropped(int width, int height, int shorter, int size, RandomStream& random) {
  ImageView view = whole(width, height, shorter);
  view.window_top = anywhere(random, view.resized_height - size + 1);
  view.window_left = anywhere(random, view.resized_width - size + 1);
  return view;
}

ImageView boxed(int width, int height, int size, const RandomBox& box, RandomStream& random) {
  constexpr int tries = 10;
  ImageView view = {.width = width, .height = height, .resized_width = size, .resized_height = size};
  const double area = static_cast<double>(width) * height;
  for (int i = 0; i < tries; ++i) {
    const double target = area * between_both(random, box.least_scale, box.most_scale);
    const double ratio = std::exp(between_both(random, std::log(box.least_ratio), std::log(box.most_ratio)));
    const double wide = std::nearbyint(std::sqrt(target * ratio)), high = std::nearbyint(std::sqrt(target / ratio));
    if (wide < 1 || wide > width || high < 1 || high > height) continue;
    view.width = static_cast<int>(wide);
    view.height = static_cast<int>(high);
    view.top = anywhere(random, height - view.height + 1);
    view.left = anywhere(random, width - view.width + 1);
    return view;
  }
  // The largest box in the middle whose ratio is allowed.
  const double ratio = static_cast<double>(width) / height;
  if (ratio < box.least_ratio)
    view.height = std::clamp(rounded(width / box.least_ratio), 1, height);
  else if (ratio > box.most_ratio)
    view.width = std::clamp(rounded(height * box.most_ratio), 1, width);
  view.top = (height - view.height) / 2;
  view.left = (width - view.width) / 2;
  return view;
}

}  // namespace lockstep
