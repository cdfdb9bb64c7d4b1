// SPDX-License-Identifier: Apache-2.0
//
// What the section `data` has whatever the reader: {type: ..., sampling: {...}, evals: {NAME: {eval: ...}}, ...}.
//
//   sampling   order    shuffled | blocks | in_order | streams (sampler.hpp)
//              block, window   with blocks: samples of a block, blocks that are shuffled with each other
//              balance  none | classes: every class is drawn equally often
//              weights  with classes: {CLASS: number}, how often against the others; default 1
//   evals      further evaluation sets: by name, the keys in which they differ from the section
#include <algorithm>
#include <map>
#include <utility>

#include "runtime/config/field.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {
namespace {

constexpr const char* kSampling = "sampling";
constexpr const char* kEvals = "evals";
constexpr const char* kNone = "none";
constexpr const char* kClasses = "classes";

std::vector<SampleGroup> groups_by_class(const Section& section, const DataSplits& splits) {
  const std::vector<std::int64_t> classes = splits.train->classes();
  if (classes.empty())
    throw section.unexpected("balance", kNone, "; the samples of this data have no classes that are known beforehand");
  std::map<std::int64_t, SampleGroup> groups;
  for (std::size_t sample = 0; sample < classes.size(); ++sample)
    groups[classes[sample]].samples.push_back(static_cast<std::int64_t>(sample));
  const Section weights = section.section("weights");
  std::vector<SampleGroup> all;
  std::vector<std::string> names;
  for (auto& [number, group] : groups) {
    names.push_back(class_text(splits, number));
    group.weight = weights.get(names.back(), 1.0, above(0.0));
    all.push_back(std::move(group));
  }
  for (const std::string& key : weights.keys())
    if (std::find(names.begin(), names.end(), key) == names.end())
      throw weights.error(key, concat("got '", key, "', which is no class of the training set, expected some of ",
                                      join(names), did_you_mean(key, names)));
  return all;
}

Sampling read_sampling(const Section& section, const DataSplits& splits) {
  Sampling sampling = splits.sampling;  // with the groups of a mixture
  const auto order = section.get<std::string>("order", name_of(sampling.order), one_of(names<SampleOrder>()));
  sampling.order = *find_enum<SampleOrder>(order);
  if (sampling.order == SampleOrder::blocks) {
    const auto positive = at_least<std::int64_t>(1);
    sampling.block = section.get("block", sampling.block, positive);
    sampling.window = section.get("window", sampling.window, positive);
  }
  const bool by_class = section.get<std::string>("balance", kNone, one_of({kNone, kClasses})) == kClasses;
  if (by_class && !sampling.groups.empty())
    throw section.unexpected("balance", kNone, "; a mixture draws by the weights of its sources");
  if (by_class) sampling.groups = groups_by_class(section, splits);
  section.finish();
  if (!sampling.groups.empty() && sampling.order != SampleOrder::shuffled)
    throw section.unexpected("order", name_of(SampleOrder::shuffled), "; samples are drawn by weights here");
  return sampling;
}

/// Stands in for a training set that is not opened, where only the evaluation set is wanted.
/// `size` samples of the form of another set's. Reading one throws.
class AbsentDataset : public Dataset {
 public:
  AbsentDataset(std::shared_ptr<const Dataset> like, std::int64_t size) : like_(std::move(like)), size_(size) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override { return like_->entries(rows); }
  std::int64_t size() const override { return size_; }
  Tensors read(const std::vector<std::int64_t>& /*samples*/) const override {
    throw DataError("the training data was not opened, for only the evaluation set was asked for");
  }

 private:
  std::shared_ptr<const Dataset> like_;
  std::int64_t size_;
};

/// Among what is left to the reader its type is known.
Section of_reader(Section rest) {
  rest.has("type");
  return rest;
}

class Opener {
 public:
  Opener(const Section& section, DataContext context, const DataReader& reader)
      : section_(section), context_(std::move(context)), reader_(reader) {}

  DataSplits open() const {
    return completed(reader_.open(of_reader(section_.without({kSampling, kEvals})), context_));
  }

 private:
  DataSplits completed(DataSplits splits) const {
    if (!splits.train && context_.trained && splits.eval)
      splits.train = std::make_shared<AbsentDataset>(splits.eval, context_.trained->samples);
    if (!context_.trained) splits.sampling = read_sampling(section_.section(kSampling), splits);
    add_evals(splits);
    // What these give is as incomplete as what the reader gave.
    if (splits.unrecorded)
      splits.unrecorded = [self = *this, inner = splits.unrecorded] { return self.completed(inner()); };
    if (splits.taught_by)
      splits.taught_by = [self = *this, inner = splits.taught_by](const DataRecord& record) {
        return self.completed(inner(record));
      };
    return splits;
  }

  void add_evals(DataSplits& splits) const {
    const Section evals = section_.section(kEvals);
    for (const std::string& name : evals.keys()) {
      if (!splits.eval) throw section_.unexpected("eval", "a set to evaluate first", "; evals has further ones");
      DataContext context = context_;
      if (splits.record) context.trained = TrainedOn{splits.train->size(), *splits.record};
      DataSplits further = reader_.open(
          of_reader(section_.without({kSampling, kEvals}).overlaid(evals.required_section(name))), context);
      if (!further.eval)
        throw evals.error(name, "got no evaluation set, expected the key `eval` or what the reader has");
      splits.further_evals.push_back({name, further.eval});
      for (std::string& note : further.notes) splits.notes.push_back(std::move(note));
      if (splits.record && further.record)
        splits.record->eval.insert(splits.record->eval.end(), further.record->eval.begin(), further.record->eval.end());
    }
  }

  Section section_;
  DataContext context_;
  DataReader reader_;
};

/// Says of tables that it is the build that cannot read them.
Rule<std::string> one_of_readers(const Section& section, const Table<DataReader>& readers) {
  const std::string type = section.is_scalar("type") ? section.get<std::string>("type") : "";
  if ((type == "table" || type == "csv") && !readers.find(type))
    throw section.error("type", concat("got ", type, ", which this build has not: it was made without tables ",
                                       "(LOCKSTEP_ARROW=OFF); expected one of ", join(readers.names()),
                                       "; or build it with Apache Arrow (docs/install.md)"));
  return one_of(readers.names());
}

}  // namespace

DataSplits open_data(const Section& section, const DataContext& context, const Table<DataReader>& readers) {
  const auto type = section.get<std::string>("type", one_of_readers(section, readers));
  DataContext here = context;
  here.readers = std::make_shared<const Table<DataReader>>(readers);
  return Opener(section, std::move(here), readers.get(type)).open();
}

}  // namespace lockstep
