// SPDX-License-Identifier: Apache-2.0
//
// Data as numbered samples with named entries. Only the worker of stage 0 reads it.
#pragma once

#include <memory>
#include <string>
#include <vector>

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
  /// The entries of all samples, when they lie in memory anyway: looked at once before training instead of batch by
  /// batch. Empty: they do not.
  virtual Tensors all() const { return {}; }
  /// Where a sample comes from, for messages: "data.csv:17"; empty: there is nothing to say.
  virtual std::string place_of(std::int64_t /*sample*/) const { return ""; }
};

/// data.read(), which may be anybody's: DataError when it is not what entries() promised, Error with the samples when
/// it throws something that is none of ours.
Tensors read_samples(const Dataset& data, const std::vector<std::int64_t>& samples);

struct DataSplits {
  std::shared_ptr<const Dataset> train;
  std::shared_ptr<const Dataset> eval;  ///< null when the config names none
  std::vector<std::string> notes = {};  ///< what the user should know before training; a line each
  /// What decides bits beside the config, such as the arithmetic of a scaling; a checkpoint records it as
  /// `data.arithmetic`. Empty: nothing does, or what did so before it was recorded.
  std::string arithmetic = {};
  /// With an `arithmetic`: the same data as a checkpoint that records none was trained on.
  std::function<DataSplits()> unrecorded = {};
};

/// What a reader may need to know from outside its section.
struct DataContext {
  std::uint64_t seed = 1;
  std::int64_t context = 0;  ///< model.context when the model has one: default sequence length of text
};

struct DataReader {
  std::string type;
  std::string summary;  ///< one line for `lockstep list readers`
  std::function<DataSplits(const Section&, const DataContext&)> open;
};

const std::vector<DataReader>& data_readers();

/// By `type`; ConfigError with the nearest name when there is none. Reads all keys of the section and calls finish().
DataSplits open_data(const Section& section, const DataContext& context);

/// The order of samples is a function of (seed, epoch): a permutation of 0..size-1 per epoch, epochs one after another,
/// batches straddle no epoch: the last batch of an epoch is short. Position = samples consumed since the start.
class Sampler {
 public:
  Sampler(std::int64_t size, std::uint64_t seed);
  /// The samples of the batch that starts at `position`: `batch` of them, or fewer at the end of an epoch.
  std::vector<std::int64_t> batch(std::int64_t position, std::int64_t batch);
  /// The samples of optimizer step `step`, from 1, of a run with such batches.
  std::vector<std::int64_t> of_step(std::int64_t step, std::int64_t batch);

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;
};

}  // namespace lockstep
