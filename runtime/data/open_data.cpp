// SPDX-License-Identifier: Apache-2.0
//
// What the section `data` has whatever the reader: {type: ..., sampling: {...}, evals: {NAME: {eval: ...}}, ...}.
//
//   sampling   order    shuffled | blocks | in_order | streams (sampler.hpp)
//              block, window   with blocks: samples of a block, blocks that are shuffled with each other
//              balance  none | classes: every class is drawn equally often
//              weights  with classes: {CLASS: number}, how often against the others; default 1
//   masking    tokens to be guessed (masked_tokens.hpp): {token: 103, probability: 0.15, random: 0.1, kept: 0.1,
//              never: [0], vocab: 30522}
//   evals      further evaluation sets: by name, the keys in which they differ from the section
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/config/field.hpp"
#include "runtime/data/masked_tokens.hpp"

namespace lockstep {
namespace {

constexpr const char* kSampling = "sampling";
constexpr const char* kMasking = "masking";
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

/// `below`: of the tokens, where the data knows it; else 0.
Masking read_masking(const Section& section, std::int64_t below) {
  Masking masking;
  const auto token = at_least<std::int64_t>(0);
  masking.token = section.get("token", token);
  masking.probability = section.get("probability", masking.probability, between(0.0, 1.0));
  masking.random = section.get("random", masking.random, between(0.0, 1.0));
  masking.kept = section.get("kept", masking.kept, between(0.0, 1.0));
  masking.never = section.list("never", masking.never, token);
  masking.vocab = section.get<std::int64_t>("vocab", below, token);
  section.finish();
  if (masking.random + masking.kept > 1)
    throw section.error("kept", concat("got ", masking.kept, ", with random at ", masking.random,
                                       "; the two are shares of the tokens to be guessed: at most 1 together"));
  if (masking.vocab == 0 && masking.random > 0)
    throw section.error("vocab",
                        "is missing; some tokens are replaced by others, which are drawn below it (or set "
                        "random: 0)");
  return masking;
}

/// Among what is left to the reader its type is known.
Section of_reader(Section rest) {
  rest.has("type");
  return rest;
}

/// Samples that are to be answered: whatever the reader has for their targets.
class WithoutTargets : public Dataset {
 public:
  explicit WithoutTargets(std::shared_ptr<const Dataset> data) : data_(std::move(data)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = data_->entries(rows);
    entries.back() = {.name = entries.back().name, .dtype = at::kLong, .sizes = {rows}, .differentiable = false};
    return entries;
  }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors entries = data_->read(samples);
    entries.back() = at::zeros({static_cast<std::int64_t>(samples.size())}, at::kLong);
    return entries;
  }
  bool reads_in_parallel() const override { return data_->reads_in_parallel(); }
  bool is_in_memory() const override { return data_->is_in_memory(); }
  std::string place_of(std::int64_t sample) const override { return data_->place_of(sample); }

 private:
  std::shared_ptr<const Dataset> data_;
};

class Opener {
 public:
  Opener(const Section& section, DataContext context, const DataReader& reader)
      : section_(section), context_(std::move(context)), reader_(reader) {}

  DataSplits open() const {
    return completed(reader_.open(of_reader(section_.without({kSampling, kMasking, kEvals})), context_));
  }

 private:
  DataSplits completed(DataSplits splits) const {
    if (context_.trained && context_.trained->inputs) {
      splits.eval = std::make_shared<WithoutTargets>(splits.eval);
      splits.record = context_.trained->record;
      if (!splits.inputs) splits.inputs.emplace();
    }
    if (!splits.train && context_.trained && splits.eval)
      splits.train = absent_dataset(splits.eval, context_.trained->samples);
    if (!context_.trained) splits.sampling = read_sampling(section_.section(kSampling), splits);
    add_evals(splits);
    if (section_.has(kMasking) && !splits.inputs) mask(splits);
    // What these give is as incomplete as what the reader gave.
    if (splits.unrecorded)
      splits.unrecorded = [self = *this, inner = splits.unrecorded] { return self.completed(inner()); };
    if (splits.taught_by)
      splits.taught_by = [self = *this, inner = splits.taught_by](const DataRecord& record) {
        return self.completed(inner(record));
      };
    return splits;
  }

  void mask(DataSplits& splits) const {
    const auto& known = splits.eval ? splits.eval : splits.train;
    const Masking masking = read_masking(section_.section(kMasking), known->entries(1).front().below);
    const auto masked = [&](std::shared_ptr<const Dataset>& set) {
      if (set) set = masked_tokens(std::move(set), masking, context_.seed);
    };
    masked(splits.train);
    masked(splits.eval);
    for (EvaluationSet& further : splits.further_evals) masked(further.data);
    splits.class_names.clear();
  }

  void add_evals(DataSplits& splits) const {
    if (splits.inputs) return;
    const Section evals = section_.section(kEvals);
    for (const std::string& name : evals.keys()) {
      if (!splits.eval) throw section_.unexpected("eval", "a set to evaluate first", "; evals has further ones");
      DataContext context = context_;
      if (splits.record) context.trained = TrainedOn{splits.train->size(), *splits.record};
      DataSplits further = reader_.open(
          of_reader(section_.without({kSampling, kMasking, kEvals}).overlaid(evals.required_section(name))), context);
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

void check_takes_inputs(const Section& section, const DataReader& reader, const Table<DataReader>& readers,
                        const TrainedOn& trained) {
  std::vector<std::string> able;
  for (const DataReader& each : readers.entries())
    if (each.takes_inputs) able.push_back(each.name);
  if (!reader.takes_inputs)
    throw section.error(
        "type", concat("got ", reader.name, ", which has no files without targets to answer; expected ", join(able)));
  const bool is_table = reader.name == "table" || reader.name == "csv";
  if (is_table || (trained.inputs->keep.empty() && trained.inputs->format == "auto")) return;
  throw section.error("type", concat("got ", reader.name, ", whose inputs have no columns to keep and no formats to ",
                                     "choose from: these are for tables"));
}

}  // namespace

DataSplits open_data(const Section& section, const DataContext& context, const Table<DataReader>& readers) {
  const auto type = section.get<std::string>("type", one_of_readers(section, readers));
  DataContext here = context;
  here.readers = std::make_shared<const Table<DataReader>>(readers);
  const DataReader& reader = readers.get(type);
  if (context.trained && context.trained->inputs) check_takes_inputs(section, reader, readers, *context.trained);
  return Opener(section, std::move(here), reader).open();
}

}  // namespace lockstep
