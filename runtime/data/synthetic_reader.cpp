// SPDX-License-Identifier: Apache-2.0
//
// {type: synthetic}: data that needs no file and that a model can learn. A sample is a function of (seed, split,
// index).
//
//   samples, eval_samples   how many; eval_samples 0: no evaluation set
//   task                    regression | classification | tokens | clicks | image_classification | segmentation
//   noise                   see below
//
// regression, classification (`inputs`, `outputs`): x float32 [rows, inputs] is normal with variance 1; a fixed random
// teacher gives y = V tanh(U x / sqrt(inputs)) / sqrt(32), U [32, inputs] and V [outputs, 32] normal with variance 1.
//   regression:     targets float32 [rows, outputs] = y + noise * normal
//   classification: targets int64 [rows] = argmax y; a share `noise` of them is a random class instead
// tokens (`context`, default the model's, and `vocab`): a fixed random successor of every token, all tokens on one
// cycle;
//   a sequence starts anywhere and follows it, except that a share `noise` of the steps goes to a random token.
//   x int64 [rows, context]; targets int64 [rows, context] are one step ahead.
// clicks (`fields`, how many values each has): x int64 [rows, fields], value v of a field of n about as often as
//   1 / (v + 1); every value has a fixed normal bias b and a fixed normal direction d in 4 dimensions. targets float32
//   [rows, 1]: 1 with the probability sigmoid(-1 + sum of b / sqrt(fields) + 1.5 * sum over pairs of d d' / (2
//   sqrt(pairs))), except that a share `noise` of them is a fair coin.
// image_classification, segmentation (`size`, `channels`, default 1, and `classes`): x float32 [rows, channels, size,
//   size], drawn as below on a background of 0, plus noise * normal.
//   image_classification: a class is a fixed random pattern [channels, 5, 5] of +1 and -1 (cut to `size`), which stands
//     anywhere in the image. targets int64 [rows].
//   segmentation: classes 1, 2, ... are one rectangle each, from a quarter to half of the image high and wide,
//   anywhere,
//     later ones over earlier ones, filled with the class's colour, fixed and normal with variance 1 per channel; class
//     0 is the background. targets int64 [rows, size, size].
//
// Sets of up to 64 MiB are made once, at the start; larger ones as they are read.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/data/random_stream.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/table_dataset.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

RandomStream stream_of(std::uint64_t seed, std::int64_t index, const std::string& what) {
  return RandomStream(mix_seed(seed, static_cast<std::uint64_t>(index), 0, "data.synthetic." + what));
}

/// The fixed random function that regression and classification are to find.
class Teacher {
 public:
  Teacher(std::uint64_t seed, int inputs, int outputs)
      : in_(static_cast<std::size_t>(inputs) * kHidden), out_(static_cast<std::size_t>(outputs) * kHidden) {
    RandomStream random = stream_of(seed, 0, "teacher");
    for (double& weight : in_) weight = random.normal() / std::sqrt(inputs);
    for (double& weight : out_) weight = random.normal() / std::sqrt(kHidden);
  }

  /// x: [inputs]; the result: [outputs]. Sums in a fixed order.
  std::vector<double> operator()(const float* x) const {
    std::vector<double> hidden(kHidden);
    for (std::size_t i = 0; i < in_.size() / kHidden; ++i) {
      for (std::size_t h = 0; h < kHidden; ++h) hidden[h] += in_[i * kHidden + h] * x[i];
    }
    for (double& value : hidden) value = std::tanh(value);
    std::vector<double> y(out_.size() / kHidden);
    for (std::size_t o = 0; o < y.size(); ++o) {
      y[o] = std::inner_product(hidden.begin(), hidden.end(), out_.begin() + static_cast<std::ptrdiff_t>(o * kHidden),
                                0.0);
    }
    return y;
  }

 private:
  static constexpr std::size_t kHidden = 32;
  std::vector<double> in_, out_;  ///< [inputs, kHidden], [outputs, kHidden]
};

/// A Dataset whose samples are made one by one.
class Generated : public Dataset {
 public:
  Generated(std::int64_t size, std::uint64_t seed, std::string split)
      : size_(size), seed_(seed), split_(std::move(split)) {}

  std::int64_t size() const override { return size_; }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const std::vector<EntrySpec> specs = entries(static_cast<std::int64_t>(samples.size()));
    Tensors result;
    for (const EntrySpec& spec : specs) result.push_back(at::empty(spec.sizes, spec.dtype));
    for (std::size_t row = 0; row < samples.size(); ++row) {
      LOCKSTEP_CHECK(samples[row] >= 0 && samples[row] < size_, "sample ", samples[row], " of ", size_);
      RandomStream random = stream_of(seed_, samples[row], split_);
      make(random, result[0], result[1], static_cast<std::int64_t>(row));
    }
    return result;
  }

 protected:
  /// Writes row `row` of both tensors from the sample's own stream.
  virtual void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const = 0;

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::string split_;
};

template <typename T>
T* row_of(at::Tensor& tensor, std::int64_t row) {
  return tensor.mutable_data_ptr<T>() + row * tensor.stride(0);
}

struct TeacherTask {
  std::int64_t inputs = 0, outputs = 0;
  bool classification = false;
  double noise = 0;
  std::shared_ptr<const Teacher> teacher;
};

class TaughtDataset : public Generated {
 public:
  TaughtDataset(std::int64_t size, std::uint64_t seed, const std::string& split, TeacherTask task)
      : Generated(size, seed, split), task_(std::move(task)) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const DataEntry x{at::kFloat, {task_.inputs}};
    return data_entries(
        rows, x,
        task_.classification ? DataEntry{at::kLong, {}, task_.outputs} : DataEntry{at::kFloat, {task_.outputs}});
  }

 private:
  void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const override {
    float* input = row_of<float>(x, row);
    std::generate_n(input, task_.inputs, [&] { return static_cast<float>(random.normal()); });
    const std::vector<double> y = (*task_.teacher)(input);
    if (task_.classification) {
      const auto best = static_cast<std::uint64_t>(std::max_element(y.begin(), y.end()) - y.begin());
      const bool noisy = random.uniform() < task_.noise;
      *row_of<std::int64_t>(targets, row) = static_cast<std::int64_t>(noisy ? random.below(y.size()) : best);
    } else {
      std::transform(y.begin(), y.end(), row_of<float>(targets, row),
                     [&](double value) { return static_cast<float>(value + task_.noise * random.normal()); });
    }
  }

  TeacherTask task_;
};

struct TokenTask {
  std::int64_t context = 0, vocab = 0;
  double noise = 0;
  std::shared_ptr<const std::vector<std::int64_t>> successor;
};

/// Sattolo's shuffle (1986): a permutation that is one cycle, so that no sequence gets stuck in a small one.
std::vector<std::int64_t> random_cycle(std::int64_t size, std::uint64_t seed) {
  std::vector<std::int64_t> successor(static_cast<std::size_t>(size));
  std::iota(successor.begin(), successor.end(), 0);
  RandomStream random = stream_of(seed, 0, "successor");
  for (std::size_t last = successor.size() - 1; last > 0; --last)
    std::swap(successor[last], successor[random.below(last)]);
  return successor;
}

class TokenDataset : public Generated {
 public:
  TokenDataset(std::int64_t size, std::uint64_t seed, const std::string& split, TokenTask task)
      : Generated(size, seed, split), task_(std::move(task)) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const DataEntry tokens{at::kLong, {task_.context}, task_.vocab};
    return data_entries(rows, tokens, tokens);
  }

 private:
  void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const override {
    const auto anywhere = [&] {
      return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(task_.vocab)));
    };
    auto* input = row_of<std::int64_t>(x, row);
    auto* target = row_of<std::int64_t>(targets, row);
    std::int64_t token = anywhere();
    for (std::int64_t i = 0; i < task_.context; ++i) {
      input[i] = token;
      token = random.uniform() < task_.noise ? anywhere() : (*task_.successor)[static_cast<std::size_t>(token)];
      target[i] = token;
    }
  }

  TokenTask task_;
};

struct ClickTask {
  std::vector<std::int64_t> fields;
  double noise = 0;
  std::uint64_t seed = 0;
};

class ClickDataset : public Generated {
 public:
  ClickDataset(std::int64_t size, std::uint64_t seed, const std::string& split, ClickTask task)
      : Generated(size, seed, split), task_(std::move(task)) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const std::int64_t below = *std::max_element(task_.fields.begin(), task_.fields.end());
    return data_entries(rows, {at::kLong, {static_cast<std::int64_t>(task_.fields.size())}, below}, {at::kFloat, {1}});
  }

 private:
  static constexpr std::size_t kDimensions = 4;
  using Direction = std::array<double, kDimensions>;

  void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const override {
    auto* values = row_of<std::int64_t>(x, row);
    const std::size_t count = task_.fields.size();
    std::vector<Direction> directions(count);
    double biases = 0, pairs = 0;
    for (std::size_t f = 0; f < count; ++f) {
      const std::int64_t of = task_.fields[f];
      const double place = std::exp(random.uniform() * std::log(static_cast<double>(of) + 1));  // from 1 to of + 1
      values[f] = std::min(static_cast<std::int64_t>(place) - 1, of - 1);
      RandomStream its = stream_of(task_.seed, values[f], concat("clicks.", f));
      biases += its.normal();
      for (double& part : directions[f]) part = its.normal();
      for (std::size_t before = 0; before < f; ++before)
        pairs += std::inner_product(directions[f].begin(), directions[f].end(), directions[before].begin(), 0.0);
    }
    const auto fields = static_cast<double>(count);
    double logit = -1 + biases / std::sqrt(fields);
    if (count > 1) logit += 1.5 * pairs / (2 * std::sqrt(fields * (fields - 1) / 2));
    const bool noisy = random.uniform() < task_.noise;
    *row_of<float>(targets, row) = random.uniform() < (noisy ? 0.5 : 1 / (1 + std::exp(-logit))) ? 1.0F : 0.0F;
  }

  ClickTask task_;
};

struct ImageTask {
  std::int64_t size = 0, channels = 0, classes = 0;
  double noise = 0;
  /// image_classification: patterns [classes, channels, pattern, pattern]; segmentation: colours [classes, channels].
  std::vector<double> figures;
  static constexpr std::int64_t kPattern = 5;
  std::int64_t pattern() const { return std::min(size, kPattern); }
};

class ImageDataset : public Generated {
 public:
  ImageDataset(std::int64_t size, std::uint64_t seed, const std::string& split, ImageTask task)
      : Generated(size, seed, split), task_(std::move(task)) {}

 protected:
  /// 0 <= result < below.
  static std::int64_t draw(RandomStream& random, std::int64_t below) {
    return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(below)));
  }
  DataEntry image_entry() const { return {at::kFloat, {task_.channels, task_.size, task_.size}}; }
  void add_noise(RandomStream& random, float* image) const {
    if (task_.noise == 0) return;
    for (std::int64_t i = 0; i < task_.channels * task_.size * task_.size; ++i)
      image[i] += static_cast<float>(task_.noise * random.normal());
  }
  float& pixel(float* image, std::int64_t channel, std::int64_t row, std::int64_t column) const {
    return image[(channel * task_.size + row) * task_.size + column];
  }
  double figure(std::int64_t index) const { return task_.figures[static_cast<std::size_t>(index)]; }
  const ImageTask& task() const { return task_; }

 private:
  ImageTask task_;
};

class PatternDataset : public ImageDataset {
 public:
  using ImageDataset::ImageDataset;
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return data_entries(rows, image_entry(), {at::kLong, {}, task().classes});
  }

 private:
  void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const override {
    float* image = row_of<float>(x, row);
    std::fill_n(image, task().channels * task().size * task().size, 0.0f);
    const std::int64_t side = task().pattern(), kind = draw(random, task().classes);
    const std::int64_t top = draw(random, task().size - side + 1), left = draw(random, task().size - side + 1);
    for (std::int64_t c = 0; c < task().channels; ++c)
      for (std::int64_t i = 0; i < side; ++i)
        for (std::int64_t j = 0; j < side; ++j)
          pixel(image, c, top + i, left + j) =
              static_cast<float>(figure(((kind * task().channels + c) * side + i) * side + j));
    add_noise(random, image);
    *row_of<std::int64_t>(targets, row) = kind;
  }
};

class RectangleDataset : public ImageDataset {
 public:
  using ImageDataset::ImageDataset;
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return data_entries(rows, image_entry(), {at::kLong, {task().size, task().size}, task().classes});
  }

 private:
  void make(RandomStream& random, at::Tensor& x, at::Tensor& targets, std::int64_t row) const override {
    const std::int64_t size = task().size, least = std::max<std::int64_t>(size / 4, 1),
                       most = std::max(size / 2, least);
    float* image = row_of<float>(x, row);
    auto* classes = row_of<std::int64_t>(targets, row);
    std::fill_n(image, task().channels * size * size, 0.0f);
    std::fill_n(classes, size * size, 0);
    for (std::int64_t kind = 1; kind < task().classes; ++kind) {
      const std::int64_t height = least + draw(random, most - least + 1),
                         width = least + draw(random, most - least + 1);
      const std::int64_t top = draw(random, size - height + 1), left = draw(random, size - width + 1);
      for (std::int64_t i = top; i < top + height; ++i)
        for (std::int64_t j = left; j < left + width; ++j) {
          classes[i * size + j] = kind;
          for (std::int64_t c = 0; c < task().channels; ++c)
            pixel(image, c, i, j) = static_cast<float>(figure(kind * task().channels + c));
        }
    }
    add_noise(random, image);
  }
};

/// A small set is made once: a benchmark is then about the model, not about its data (with 1024 inputs and outputs a
/// batch of 64 takes 10 ms to make and 0.03 ms to copy).
std::shared_ptr<const Dataset> kept_if_small(std::shared_ptr<const Dataset> dataset) {
  constexpr std::int64_t largest_bytes = std::int64_t{64} << 20;
  std::int64_t sample_bytes = 0;
  for (const EntrySpec& entry : dataset->entries(1)) {
    sample_bytes += static_cast<std::int64_t>(c10::elementSize(entry.dtype)) *
                    std::accumulate(entry.sizes.begin(), entry.sizes.end(), std::int64_t{1}, std::multiplies<>());
  }
  if (dataset->size() > largest_bytes / sample_bytes) return dataset;
  std::vector<std::int64_t> all(static_cast<std::size_t>(dataset->size()));
  std::iota(all.begin(), all.end(), 0);
  Tensors tables = dataset->read(all);
  return std::make_shared<TableDataset>(tables[0], tables[1]);
}

struct Common {
  std::int64_t samples = 0, eval_samples = 0;
  std::string task;
  double noise = 0;
};

/// Of the tasks that add it to numbers; elsewhere it is a share.
bool unbounded_noise(const std::string& task) {
  return task == "regression" || task == "image_classification" || task == "segmentation";
}

template <typename Made, typename Task>
DataSplits make_splits(const Common& common, std::uint64_t seed, const Task& task) {
  DataSplits splits;
  splits.record.emplace();  // the config says it all
  splits.train = kept_if_small(std::make_shared<Made>(common.samples, seed, "train", task));
  if (common.eval_samples > 0) {
    splits.eval = kept_if_small(std::make_shared<Made>(common.eval_samples, seed, "eval", task));
  }
  return splits;
}

DataSplits open_taught(const Section& section, const Common& common, std::uint64_t seed) {
  constexpr int most = 1 << 20;
  TeacherTask task;
  task.classification = common.task == "classification";
  task.inputs = section.get<int>("inputs", between(1, most));
  task.outputs = section.get<int>("outputs", between(task.classification ? 2 : 1, most));
  task.noise = common.noise;
  section.finish();
  task.teacher = std::make_shared<const Teacher>(seed, static_cast<int>(task.inputs), static_cast<int>(task.outputs));
  return make_splits<TaughtDataset>(common, seed, task);
}

DataSplits open_tokens(const Section& section, const Common& common, const DataContext& defaults) {
  const auto lengths = between<std::int64_t>(1, 1 << 24);
  if (!section.has("context") && defaults.context == 0) {
    throw section.unexpected("context", lengths.text, "; this model has none that could be the default");
  }
  TokenTask task;
  task.context = section.get("context", defaults.context, lengths);
  task.vocab = section.get<std::int64_t>("vocab", between<std::int64_t>(2, 1 << 24));
  task.noise = common.noise;
  section.finish();
  task.successor = std::make_shared<const std::vector<std::int64_t>>(random_cycle(task.vocab, defaults.seed));
  return make_splits<TokenDataset>(common, defaults.seed, task);
}

DataSplits open_clicks(const Section& section, const Common& common, std::uint64_t seed) {
  ClickTask task;
  task.fields = section.list<std::int64_t>("fields", between<std::int64_t>(1, 1 << 24));
  if (task.fields.empty()) throw section.unexpected("fields", "how many values each field has, such as [1000, 50]");
  task.noise = common.noise;
  task.seed = seed;
  section.finish();
  return make_splits<ClickDataset>(common, seed, task);
}

DataSplits open_images(const Section& section, const Common& common, std::uint64_t seed) {
  ImageTask task;
  task.size = section.get<std::int64_t>("size", between<std::int64_t>(1, 1 << 14));
  task.channels = section.get<std::int64_t>("channels", 1, between<std::int64_t>(1, 1 << 10));
  task.classes = section.get<std::int64_t>("classes", between<std::int64_t>(2, 1 << 16));
  task.noise = common.noise;
  section.finish();
  RandomStream random = stream_of(seed, 0, "figures");
  if (common.task == "segmentation") {
    task.figures.resize(static_cast<std::size_t>(task.classes * task.channels));
    for (double& colour : task.figures) colour = random.normal();
    return make_splits<RectangleDataset>(common, seed, task);
  }
  task.figures.resize(static_cast<std::size_t>(task.classes * task.channels * task.pattern() * task.pattern()));
  for (double& pixel : task.figures) pixel = random.below(2) == 0 ? -1.0 : 1.0;
  return make_splits<PatternDataset>(common, seed, task);
}

DataSplits open_synthetic(const Section& section, const DataContext& defaults) {
  Common common;
  common.samples = section.get<std::int64_t>("samples", at_least<std::int64_t>(1));
  common.eval_samples = section.get<std::int64_t>("eval_samples", 0, at_least<std::int64_t>(0));
  common.task = section.get<std::string>(
      "task", one_of({"regression", "classification", "tokens", "clicks", "image_classification", "segmentation"}));
  common.noise = section.get<double>("noise", 0.0, unbounded_noise(common.task) ? at_least(0.0) : between(0.0, 1.0));
  if (common.task == "image_classification" || common.task == "segmentation")
    return open_images(section, common, defaults.seed);
  if (common.task == "clicks") return open_clicks(section, common, defaults.seed);
  if (common.task == "tokens") return open_tokens(section, common, defaults);
  return open_taught(section, common, defaults.seed);
}

}  // namespace

DataReader synthetic_reader() {
  return {"synthetic", "made-up samples of any number and size, which a model can learn", open_synthetic};
}

}  // namespace lockstep
