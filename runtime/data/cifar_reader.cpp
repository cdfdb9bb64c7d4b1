// SPDX-License-Identifier: Apache-2.0
//
// {type: cifar10} and {type: cifar100}: the binary versions of CIFAR
// (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version").
//
//   train, eval   a file, a glob(3) pattern or a list of them, in byte order of their paths: data_batch_*.bin
//   labels        cifar100: fine (the default; 100 classes) or coarse (20)
//   mean, std     x is (byte / 255 - mean) / std, by channel; default: 0 and 1
//   augment       {padding, flip}: of training samples (byte_images.hpp)
//
// x float32 [rows, 3, 32, 32], red, green, blue; targets int64 [rows]. A file is records of a label (cifar100: the
// coarse one and the fine one) and 3072 bytes.
#include "runtime/data/byte_images.hpp"
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kSide = 32;
constexpr std::size_t kPixels = 3 * kSide * kSide;

struct Cifar {
  std::string name;
  std::size_t labels = 1;  ///< bytes before the pixels
  std::size_t label = 0;   ///< which of them
  int classes = 10;
};

std::shared_ptr<const ByteImages> open_split(const Section& section, const std::string& key, const Cifar& kind,
                                             const std::vector<std::string>& patterns) {
  const auto images = std::make_shared<ByteImages>();
  images->channels = 3;
  images->height = images->width = kSide;
  const std::size_t stride = kind.labels + kPixels;
  for (const std::string& path : files_of(section, key, patterns)) {
    FileBytes file(path);
    const std::string_view bytes = file.bytes();
    if (bytes.empty() || bytes.size() % stride != 0)
      throw DataError(concat(path, ": has ", bytes.size(), " bytes, which are no whole number of records of ", stride,
                             " bytes; it was cut short, or is no file of the binary version of ", kind.name));
    images->records.push_back(file.record());
    images->parts.push_back({static_cast<std::int64_t>(images->labels.size()), kind.labels, stride});
    for (std::size_t i = 0; i < bytes.size() / stride; ++i) {
      const auto label = static_cast<std::uint8_t>(bytes[i * stride + kind.label]);
      if (label >= kind.classes)
        throw DataError(concat(path, ": image ", i, ": got the label ", int{label}, ", expected 0 to ",
                               kind.classes - 1, "; is it a file of the binary version of ", kind.name, "?"));
      images->labels.push_back(label);
    }
    file.let_go();
    images->files.add(std::move(file));
  }
  return images;
}

DataSplits open_cifar(const Section& section, const DataContext& context, Cifar kind) {
  const std::vector<std::string> train = read_patterns(section, "train");
  std::vector<std::string> eval;
  if (section.has("eval")) eval = read_patterns(section, "eval");
  if (kind.labels == 2 && section.get<std::string>("labels", "fine", one_of({"fine", "coarse"})) == "fine") {
    kind.label = 1;
    kind.classes = 100;
  }
  ByteImageOptions options = read_byte_image_options(section, 3, context.seed);
  options.classes = kind.classes;
  section.finish();
  const bool absent = context.trained && !eval.empty();
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  if (!absent) {
    const auto images = open_split(section, "train", kind, train);
    record.train = images->records;
    splits.train = byte_image_dataset(images, options);
  }
  if (!eval.empty()) {
    const auto images = open_split(section, "eval", kind, eval);
    record.eval = images->records;
    splits.eval = byte_image_dataset(images, options);
  }
  if (kind.classes == 10)
    splits.class_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  return splits;
}

}  // namespace

DataReader cifar10_reader() {
  return {"cifar10", "CIFAR-10, binary version", [](const Section& section, const DataContext& context) {
            return open_cifar(section, context, {"CIFAR-10", 1, 0, 10});
          }};
}

DataReader cifar100_reader() {
  return {"cifar100", "CIFAR-100, binary version", [](const Section& section, const DataContext& context) {
            return open_cifar(section, context, {"CIFAR-100", 2, 0, 20});
          }};
}

}  // namespace lockstep
