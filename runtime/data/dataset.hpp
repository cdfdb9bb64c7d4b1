// SPDX-License-Identifier: Apache-2.0
//
// Data as numbered samples with named entries. Only the worker of stage 0 reads it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/table.hpp"
#include "runtime/base/text.hpp"
#include "runtime/config/section.hpp"
#include "runtime/layer/layer.hpp"

namespace lockstep {

/// The data is wrong: a file, a line, a value. One line, whatever the file and its name hold. Exit code 2.
class DataError : public UserError {
 public:
  explicit DataError(const std::string& message) : UserError(one_line(message)) {}
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  /// Entries of `rows` samples: "x" first, "targets" last; all batched. Not differentiable.
  virtual std::vector<EntrySpec> entries(std::int64_t rows) const = 0;
  virtual std::int64_t size() const = 0;  ///< samples, >= 1
  /// The entries of these samples, dim 0 in the given order. Contiguous, on the host. Thread: one at a time.
  virtual Tensors read(const std::vector<std::int64_t>& samples) const = 0;
  /// The same, as training draws them: the first is number `first` of all samples that training has drawn so far, over
  /// its epochs, those behind it come one after the other. Whoever augments keys what is random by these numbers.
  virtual Tensors draw(const std::vector<std::int64_t>& samples, std::int64_t /*first*/) const { return read(samples); }
  /// Whether several threads may read and draw at once.
  virtual bool reads_in_parallel() const { return false; }
  /// Whether reading is a copy from memory: then nobody reads ahead.
  virtual bool is_in_memory() const { return !all().empty(); }
  /// The class of every sample, from 0, where it is known without reading them; empty: it is not, or there are none.
  virtual std::vector<std::int64_t> classes() const { return {}; }
  /// The entries of all samples, when they lie in memory anyway: looked at once before training instead of batch by
  /// batch. Empty: they do not.
  virtual Tensors all() const { return {}; }
  /// Where a sample comes from, for messages: "data.csv:17"; empty: there is nothing to say.
  virtual std::string place_of(std::int64_t /*sample*/) const { return ""; }
};

/// data.read(), or draw() with a `first`, which may be anybody's: DataError when it is not what entries() promised,
/// Error with the samples when it throws something that is none of ours.
Tensors read_samples(const Dataset& data, const std::vector<std::int64_t>& samples,
                     std::optional<std::int64_t> first = {});

/// A file as it was read. Neither its time nor the spelling of its path says that it is another one.
struct DataFile {
  std::string path;        ///< for messages; empty: no file, but samples of a set that is read from none
  std::int64_t size = 0;   ///< bytes that were read; without a path: samples that were looked at
  std::uint64_t hash = 0;  ///< of these bytes (tensor_hash.hpp)
};

/// What a run's data was, and what the training set taught, which belongs to the trained model as its weights do: a
/// checkpoint holds it (data.json).
struct DataRecord {
  std::vector<DataFile> train, eval;  ///< in the order in which they were read; the keys of `data` that name them
  /// What the training set taught, such as the scaling of a table's columns: one JSON object in the reader's own keys,
  /// but `train` and `eval`, which are taken. Empty: nothing. What is equal as text is the same.
  std::string learnt = {};
};

/// In which order an epoch has the training samples (sampler.hpp).
enum class SampleOrder : std::uint8_t { shuffled, blocks, in_order, streams };
constexpr const char* to_string(SampleOrder order) {
  switch (order) {
    case SampleOrder::shuffled: return "shuffled";
    case SampleOrder::blocks: return "blocks";
    case SampleOrder::in_order: return "in_order";
    case SampleOrder::streams: return "streams";
  }
  return nullptr;
}

/// Samples that are drawn together: a source of a mixture, a class.
struct SampleGroup {
  std::vector<std::int64_t> samples;  ///< at least one
  double weight = 1;                  ///< > 0: its share of the draws, against the other groups'
};

struct Sampling {
  SampleOrder order = SampleOrder::shuffled;
  std::int64_t block = 4096;             ///< blocks: consecutive samples that move together
  std::int64_t window = 16;              ///< blocks: so many of them are shuffled with each other
  std::vector<SampleGroup> groups = {};  ///< with order shuffled; empty: every sample once an epoch
};

struct EvaluationSet {
  std::string name;
  std::shared_ptr<const Dataset> data;
};

/// What a file of inputs has beside them.
struct InputColumns {
  std::vector<std::string> names;  ///< of what is to be written beside the answers
  /// Of a sample, by name, as it stands in the file; none: there is nothing.
  std::function<std::vector<std::optional<std::string>>(std::int64_t sample)> cells;
  std::vector<std::string> targets = {};  ///< names of what is foretold, where it is numbers
};

struct DataSplits {
  std::shared_ptr<const Dataset> train;
  std::shared_ptr<const Dataset> eval;        ///< null when the config names none
  std::vector<std::string> notes = {};        ///< what the user should know before training; a line each
  std::vector<std::string> class_names = {};  ///< by class; empty: they are numbers, or there are none
  std::vector<std::string> contents = {};     ///< what x is made of, for people (`lockstep data`); a line each
  Sampling sampling = {};
  /// Evaluated after `eval`, which alone decides what is best and what a learning rate follows.
  std::vector<EvaluationSet> further_evals = {};
  /// What decides bits beside the config, such as the arithmetic of a scaling; a checkpoint records it as
  /// `data.arithmetic`. Empty: nothing does, or what did so before it was recorded.
  std::string arithmetic = {};
  /// With an `arithmetic`: the same data as a checkpoint that records none was trained on.
  std::function<DataSplits()> unrecorded = {};
  /// What a checkpoint says of this data; nothing in it when the config says all. Absent: a set that is not known here,
  /// some of whose samples stand for it.
  std::optional<DataRecord> record = {};
  /// With a record whose training set teaches something: the same files with what another one taught.
  std::function<DataSplits(const DataRecord&)> taught_by = {};
  /// With TrainedOn::inputs: `eval` is what is to be answered, none or more samples, with zeros for targets (int64
  /// [rows]).
  std::optional<InputColumns> inputs = {};
};

/// The name of a class; where classes have none, its number.
std::string class_text(const DataSplits& data, std::int64_t number);

/// In the place of a training set of `size` samples that is not there: of the form of `like`. Reading it throws.
std::shared_ptr<const Dataset> absent_dataset(std::shared_ptr<const Dataset> like, std::int64_t size);

/// How many sets are evaluated: `eval` first, then the further ones.
int evaluation_sets(const DataSplits& data);
const Dataset& evaluation_set(const DataSplits& data, int set);
/// "evaluation set", of several "evaluation set 'code'".
std::string name_of_set(const DataSplits& data, int set);

/// What a trained model is to answer.
struct InputFile {
  std::string path;                    ///< of the reader's kind, without targets; what it has of them is passed over
  std::string format = "auto";         ///< of a table, as the reader's key
  std::vector<std::string> keep = {};  ///< columns for InputColumns, by name or 0-based number; "*": all
};

/// A training set as a checkpoint knows it.
struct TrainedOn {
  std::int64_t samples = 0;
  DataRecord record;
  std::optional<InputFile> inputs = {};  ///< takes the place of the evaluation set
  /// Of its model's keys, what the data may have to say: "inputs", "classes", ...
  std::vector<std::pair<std::string, std::string>> model_sizes = {};
};

struct DataReader;

/// What a reader may need to know from outside its section.
struct DataContext {
  std::uint64_t seed = 1;
  std::int64_t context = 0;  ///< model.context when the model has one: default sequence length of text
  /// Only the evaluation set is wanted: readers of files do not open the training set, where the record has what it
  /// taught; a set of its size that cannot be read takes its place.
  std::optional<TrainedOn> trained = {};
  /// For a reader of what other readers read: open_data() fills it in.
  std::shared_ptr<const Table<DataReader>> readers = {};
};

struct DataReader {
  std::string name;     ///< data.type
  std::string summary;  ///< one line for `lockstep list readers`
  std::function<DataSplits(const Section&, const DataContext&)> open;
  bool takes_inputs = false;  ///< whether it knows TrainedOn::inputs: gives DataSplits::eval of them, and `inputs`
};

Table<DataReader> data_readers();

/// By `type`; ConfigError with the nearest name when there is none. Reads all keys of the section and calls finish().
/// The keys `sampling` and `evals` are every reader's, and read here.
DataSplits open_data(const Section& section, const DataContext& context,
                     const Table<DataReader>& readers = data_readers());

}  // namespace lockstep
