// SPDX-License-Identifier: Apache-2.0
//
// {type: safetensors}: arrays as Python hands them over, save_file({"x": x, "targets": y}, "train.safetensors").
//
//   train, eval   a file, a glob(3) pattern or a list of them, in byte order of their paths; their tensors are joined
//                 along the first dimension, which is that of the samples
//   x, targets    the names of the tensors; default: x and targets
//   more          names of further tensors, which layers read under these names (losses: sample_weights, float32, what
//                 each sample counts); default: none
//   dtypes        {NAME: float32 | int64}: what a tensor of integers becomes; default: int64. A tensor of
//   floating-point
//                 numbers becomes float32
//
// Files are mapped (file_bytes.hpp). Opening looks at all of them once, for their hash, and at integers for the
// largest.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/base/check.hpp"
#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/file_bytes.hpp"
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {
namespace {

/// A tensor of the data: its place in every file.
struct Column {
  std::string name;    ///< of the entry
  std::string tensor;  ///< in the files
  at::ScalarType dtype = at::kFloat, stored = at::kFloat;
  std::vector<std::int64_t> sizes;  ///< of a row
  std::int64_t elements = 1;        ///< of a row
  std::int64_t largest = -1;        ///< of int64
  std::int64_t below() const { return largest < std::numeric_limits<std::int64_t>::max() ? largest + 1 : 0; }
  std::vector<std::size_t> begin;  ///< byte, by file
};

template <typename From, typename To>
void convert(const char* from, std::int64_t count, To* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    to[i] = static_cast<To>(value);
  }
}

template <typename To>
void convert(at::ScalarType stored, const char* from, std::int64_t count, To* to) {
  if (stored == at::kFloat) return convert<float>(from, count, to);
  if (stored == at::kDouble) return convert<double>(from, count, to);
  if (stored == at::kHalf) return convert<c10::Half>(from, count, to);
  if (stored == at::kBFloat16) return convert<c10::BFloat16>(from, count, to);
  if (stored == at::kLong) return convert<std::int64_t>(from, count, to);
  if (stored == at::ScalarType::UInt32) return convert<std::uint32_t>(from, count, to);
  if (stored == at::kInt) return convert<std::int32_t>(from, count, to);
  if (stored == at::ScalarType::UInt16) return convert<std::uint16_t>(from, count, to);
  if (stored == at::kShort) return convert<std::int16_t>(from, count, to);
  if (stored == at::kChar) return convert<std::int8_t>(from, count, to);
  LOCKSTEP_CHECK(stored == at::kByte || stored == at::kBool, "tensors of ", c10::toString(stored));
  convert<std::uint8_t>(from, count, to);
}

class TensorRows : public Dataset {
 public:
  explicit TensorRows(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// Throws DataError when it does not fit to the files before.
  void add(const std::string& path) {
    const SafetensorsFile header = opened(path);
    FileBytes file(path);
    if (static_cast<std::int64_t>(file.bytes().size()) != header.size())
      throw DataError(concat(path, ": was changed while it was opened"));
    std::int64_t rows = -1;
    for (Column& column : columns_) {
      const TensorEntry& entry = entry_of(header, column);
      accept(path, entry, column);
      if (rows >= 0 && entry.sizes[0] != rows)
        throw DataError(concat(path, ": tensor '", column.tensor, "' is ", to_string(entry), ", expected ", rows,
                               " samples along its first dimension, as '", columns_.front().tensor, "' has"));
      rows = entry.sizes[0];
    }
    records_.push_back(file.record());
    files_.add(std::move(file));
    begins_.push_back(size_);
    size_ += rows;
    for (Column& column : columns_) look_at_integers(column);
  }
  const std::vector<DataFile>& records() const { return records_; }
  const std::vector<Column>& columns() const { return columns_; }

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries;
    for (const Column& column : columns_) {
      EntrySpec& entry = entries.emplace_back();
      entry.name = column.name;
      entry.dtype = column.dtype;
      entry.sizes = column.sizes;
      entry.sizes.insert(entry.sizes.begin(), rows);
      entry.differentiable = false;
      entry.below = column.below();
    }
    return entries;
  }
  std::int64_t size() const override { return size_; }
  bool reads_in_parallel() const override { return true; }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors result;
    const std::vector<EntrySpec> specs = entries(static_cast<std::int64_t>(samples.size()));
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      at::Tensor& entry = result.emplace_back(at::empty(specs[i].sizes, specs[i].dtype));
      for (std::size_t row = 0; row < samples.size(); ++row) {
        const auto first = static_cast<std::int64_t>(row) * columns_[i].elements;
        if (specs[i].dtype == at::kFloat)
          put(columns_[i], samples[row], entry.mutable_data_ptr<float>() + first);
        else
          put(columns_[i], samples[row], entry.mutable_data_ptr<std::int64_t>() + first);
      }
    }
    return result;
  }

  std::vector<std::int64_t> classes() const override {
    const Column& targets = columns_.back();
    if (targets.dtype != at::kLong || !targets.sizes.empty()) return {};
    std::vector<std::int64_t> classes(static_cast<std::size_t>(size_));
    for (std::int64_t row = 0; row < size_; ++row) put(targets, row, &classes[static_cast<std::size_t>(row)]);
    if (*std::min_element(classes.begin(), classes.end()) < 0) return {};
    return classes;
  }

  std::string place_of(std::int64_t sample) const override {
    const std::size_t file = file_of(sample);
    return concat(files_[file].path(), ": row ", sample - begins_[file]);
  }

 private:
  static SafetensorsFile opened(const std::string& path) {
    try {
      return SafetensorsFile(path);
    } catch (const CheckpointError& error) {
      throw DataError(error.what());
    }
  }

  static const TensorEntry& entry_of(const SafetensorsFile& file, const Column& column) {
    const TensorEntry* entry = file.find(column.tensor);
    if (entry) return *entry;
    std::vector<std::string> names;
    for (const TensorEntry& each : file.entries()) names.push_back(each.name);
    constexpr std::size_t shown = 20;
    const std::string more = names.size() > shown ? concat(", ... (", names.size(), ")") : "";
    const std::string advice = did_you_mean(column.tensor, names);
    names.resize(std::min(names.size(), shown));
    throw DataError(concat(file.path(), ": has no tensor '", column.tensor, "', only ",
                           names.empty() ? "none" : join(names), more, advice));
  }

  void accept(const std::string& path, const TensorEntry& entry, Column& column) const {
    const auto bytes = static_cast<std::size_t>(entry.end - entry.begin);
    if (entry.sizes.empty() || bytes == 0)
      throw DataError(concat(path, ": tensor '", column.tensor, "' is ", to_string(entry),
                             ", expected one sample or more along its first dimension"));
    const std::vector<std::int64_t> sizes(entry.sizes.begin() + 1, entry.sizes.end());
    if (column.begin.empty()) {
      column.stored = entry.dtype;
      column.sizes = sizes;
      for (const std::int64_t size : sizes) column.elements *= size;
      const bool floating = at::isFloatingType(entry.dtype);
      if (floating && column.dtype == at::kLong)
        throw DataError(concat(path, ": tensor '", column.tensor, "' is ", to_string(entry),
                               ", which data.dtypes wants as int64; convert it where it is written"));
      if (floating) column.dtype = at::kFloat;
      if (column.dtype == at::ScalarType::Undefined) column.dtype = at::kLong;
    } else if (column.stored != entry.dtype || column.sizes != sizes) {
      throw DataError(concat(path, ": tensor '", column.tensor, "' is ", to_string(entry), ", expected ",
                             to_string(TensorEntry{"", column.stored, column.sizes}), " for each sample, as in ",
                             files_[0].path()));
    }
    column.begin.push_back(static_cast<std::size_t>(entry.begin));
  }

  /// EntrySpec::below, of the file that has been added.
  void look_at_integers(Column& column) const {
    if (column.dtype != at::kLong) return;
    std::vector<std::int64_t> row(static_cast<std::size_t>(column.elements));
    for (std::int64_t sample = begins_.back(); sample < size_; ++sample) {
      put(column, sample, row.data());
      column.largest = std::max(column.largest, *std::max_element(row.begin(), row.end()));
    }
  }

  std::size_t file_of(std::int64_t sample) const {
    LOCKSTEP_CHECK(sample >= 0 && sample < size_, "sample ", sample, " of ", size_);
    return static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), sample) - begins_.begin()) - 1;
  }

  template <typename To>
  void put(const Column& column, std::int64_t sample, To* to) const {
    const std::size_t file = file_of(sample);
    const auto row_bytes = static_cast<std::size_t>(column.elements) * c10::elementSize(column.stored);
    const std::size_t at = column.begin[file] + static_cast<std::size_t>(sample - begins_[file]) * row_bytes;
    convert(column.stored, files_[file].bytes().data() + at, column.elements, to);
    files_.seen(row_bytes);
  }

  std::vector<Column> columns_;
  OpenFiles files_;
  std::vector<DataFile> records_;
  std::vector<std::int64_t> begins_;  // the first row of every file
  std::int64_t size_ = 0;
};

std::vector<Column> read_columns(const Section& section) {
  std::vector<std::string> names = {section.get<std::string>("x", "x", not_empty())};
  for (const std::string& name : section.list<std::string>("more", {}, not_empty())) names.push_back(name);
  names.push_back(section.get<std::string>("targets", "targets", not_empty()));
  const Section dtypes = section.section("dtypes");
  std::vector<Column> columns;
  for (const std::string& name : names) {
    Column& column = columns.emplace_back();
    column.name = column.tensor = name;
    column.dtype = at::ScalarType::Undefined;
    if (dtypes.has(name))
      column.dtype = dtypes.get<std::string>(name, one_of({"float32", "int64"})) == "int64" ? at::kLong : at::kFloat;
  }
  columns.front().name = "x";
  columns.back().name = "targets";
  for (std::size_t i = 1; i + 1 < columns.size(); ++i)
    for (std::size_t j = 0; j < columns.size(); ++j)
      if (j != i && columns[i].name == columns[j].name)
        throw section.error("more", concat("got '", columns[i].name, "', which is an entry already"));
  dtypes.finish();
  return columns;
}

std::shared_ptr<const TensorRows> open_split(const Section& section, const std::string& key,
                                             const std::vector<std::string>& patterns,
                                             const std::vector<Column>& columns) {
  const auto rows = std::make_shared<TensorRows>(columns);
  for (const std::string& path : files_of(section, key, patterns)) rows->add(path);
  return rows;
}

/// The entries of an evaluation set have to be those of the training set.
void check_same(const TensorRows& eval, const TensorRows& train) {
  for (std::size_t i = 0; i < train.columns().size(); ++i) {
    const Column &ours = eval.columns()[i], &theirs = train.columns()[i];
    const auto text = [](const Column& column) { return to_string(TensorEntry{"", column.stored, column.sizes}); };
    if (ours.dtype != theirs.dtype || ours.sizes != theirs.sizes)
      throw DataError(concat(eval.records()[0].path, ": tensor '", ours.tensor, "' is ", text(ours),
                             " for each sample, expected ", text(theirs), " as in ", train.records()[0].path));
  }
}

DataSplits open_safetensors(const Section& section, const DataContext& context) {
  const std::vector<std::string> train = read_patterns(section, "train");
  std::vector<std::string> eval;
  if (section.has("eval")) eval = read_patterns(section, "eval");
  const std::vector<Column> columns = read_columns(section);
  section.finish();
  if (context.trained && context.trained->inputs) {
    DataSplits splits;
    std::vector<Column> inputs(columns.begin(), columns.end() - 1);
    std::erase_if(inputs, [](const Column& column) { return column.name == kSampleWeights; });
    inputs.push_back(inputs.front());  // for the targets, whose place is taken
    inputs.back().name = "targets";
    splits.eval = open_split(section, "eval", {context.trained->inputs->path}, inputs);
    return splits;
  }
  const bool absent = context.trained && !eval.empty();
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  std::shared_ptr<const TensorRows> trained, evaluated;
  if (!absent) {
    splits.train = trained = open_split(section, "train", train, columns);
    record.train = trained->records();
  }
  if (!eval.empty()) {
    splits.eval = evaluated = open_split(section, "eval", eval, columns);
    record.eval = evaluated->records();
  }
  if (trained && evaluated) check_same(*evaluated, *trained);
  return splits;
}

}  // namespace

DataReader safetensors_reader() {
  return {"safetensors", "tensors of safetensors files, a sample per row", open_safetensors, /*takes_inputs=*/true};
}

}  // namespace lockstep
