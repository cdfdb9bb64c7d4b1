// SPDX-License-Identifier: Apache-2.0
//
// {type: idx}: images and labels in the IDX format of MNIST and its family (Fashion-MNIST, EMNIST, ...).
//
//   train, eval   {images: FILE, labels: FILE}: unsigned bytes, [images, rows, columns] and [images]; as they are, or
//                 packed with gzip
//   mean, std     x is (byte / 255 - mean) / std; default: 0 and 1
//   flat          x is float32 [rows, pixels] instead of [rows, 1, height, width]; default: false
//   augment       {padding, flip}: of training samples (byte_images.hpp)
//
// targets int64 [rows] are the labels.
//
// The format (http://yann.lecun.com/exdb/mnist/, as it was): two zero bytes, the type (8: unsigned bytes), the number
// of dimensions, each as 4 bytes, big-endian, then the numbers, the last dimension fastest.
#include "runtime/data/byte_images.hpp"
#include "runtime/data/gzip.hpp"
#include "runtime/data/readers.hpp"

namespace lockstep {
namespace {

struct IdxNames {
  std::string images, labels;
};

IdxNames read_names(const Section& section, const std::string& key) {
  const Section files = section.required_section(key);
  IdxNames names = {files.get<std::string>("images", not_empty()), files.get<std::string>("labels", not_empty())};
  files.finish();
  return names;
}

struct Idx {
  FileBytes file;
  std::vector<std::int64_t> sizes;
  std::size_t first = 0;  ///< byte
};

std::int64_t big_endian(std::string_view bytes) {
  std::int64_t number = 0;
  for (const char byte : bytes.substr(0, 4)) number = number << 8 | static_cast<unsigned char>(byte);
  return number;
}

FileBytes open_file(const std::string& path, std::vector<DataFile>& records) {
  FileBytes file(path);
  records.push_back(file.record());
  if (!is_gzip(file.bytes())) return file;
  return FileBytes::unpacked(path, unpacked(file.bytes(), path));
}

/// `what`: its dimensions.
Idx open_idx(const std::string& path, std::size_t dimensions, const char* what, std::vector<DataFile>& records) {
  Idx idx{open_file(path, records), {}, 4 + 4 * dimensions};
  const std::string_view bytes = idx.file.bytes();
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0)
    throw DataError(concat(path, ": is no IDX file: it does not begin with two zero bytes and a type"));
  const int type = static_cast<unsigned char>(bytes[2]), count = static_cast<unsigned char>(bytes[3]);
  if (type != 8 || static_cast<std::size_t>(count) != dimensions)
    throw DataError(concat(path, ": got an IDX file of type ", type, " with ", count, " dimensions, expected type 8 (",
                           "unsigned bytes) with ", dimensions, ": ", what));
  if (bytes.size() < idx.first) throw DataError(concat(path, ": its header is cut short"));
  std::int64_t elements = 1;
  bool overflow = false;
  for (std::size_t i = 0; i < dimensions; ++i) {
    idx.sizes.push_back(big_endian(bytes.substr(4 + 4 * i)));
    overflow |= __builtin_mul_overflow(elements, idx.sizes.back(), &elements);
  }
  if (overflow || static_cast<std::size_t>(elements) != bytes.size() - idx.first)
    throw DataError(concat(path, ": its header says ", join(idx.sizes, " x "), " bytes, and it has ",
                           bytes.size() - idx.first, "; it was cut short, or added to"));
  if (elements == 0) throw DataError(concat(path, ": got ", join(idx.sizes, " x "), ", expected one image or more"));
  return idx;
}

/// Without labels: all are 0.
std::shared_ptr<ByteImages> open_images(const std::string& path) {
  const auto images = std::make_shared<ByteImages>();
  Idx pixels = open_idx(path, 3, "images, rows, columns", images->records);
  images->labels.resize(static_cast<std::size_t>(pixels.sizes[0]));
  images->height = pixels.sizes[1];
  images->width = pixels.sizes[2];
  images->parts = {{0, pixels.first, static_cast<std::size_t>(images->height * images->width)}};
  images->files.add(std::move(pixels.file));
  return images;
}

std::shared_ptr<const ByteImages> open_split(const IdxNames& names) {
  const auto images = open_images(names.images);
  const Idx labels = open_idx(names.labels, 1, "labels", images->records);
  if (const std::size_t count = images->labels.size(); labels.sizes[0] != static_cast<std::int64_t>(count))
    throw DataError(concat(names.labels, ": got ", labels.sizes[0], " labels, expected ", count,
                           ", one for each image of ", names.images));
  const std::string_view bytes = labels.file.bytes().substr(labels.first);
  images->labels.assign(bytes.begin(), bytes.end());
  return images;
}

DataSplits open_idx_data(const Section& section, const DataContext& context) {
  const IdxNames train = read_names(section, "train");
  const bool has_eval = section.has("eval");
  const IdxNames eval = has_eval ? read_names(section, "eval") : IdxNames();
  ByteImageOptions options = read_byte_image_options(section, 1, context.seed);
  options.flat = section.get<bool>("flat", false);
  section.finish();
  if (context.trained && context.trained->inputs) {
    DataSplits splits;
    splits.eval = byte_image_dataset(open_images(context.trained->inputs->path), options);
    return splits;
  }
  const bool absent = context.trained && has_eval;
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  std::shared_ptr<const ByteImages> trained;
  if (!absent) {
    trained = open_split(train);
    record.train = trained->records;
    splits.train = byte_image_dataset(trained, options);
  }
  if (has_eval) {
    const auto images = open_split(eval);
    record.eval = images->records;
    splits.eval = byte_image_dataset(images, options);
    if (trained && (images->height != trained->height || images->width != trained->width))
      throw DataError(concat(eval.images, ": got images of ", images->height, " x ", images->width,
                             " pixels, expected ", trained->height, " x ", trained->width, " as in ", train.images));
  }
  return splits;
}

}  // namespace

DataReader idx_reader() {
  return {"idx", "images and labels of MNIST and its family", open_idx_data, /*takes_inputs=*/true};
}

}  // namespace lockstep
