// SPDX-License-Identifier: Apache-2.0
//
// {type: mixture}: samples of several sources, each drawn as often as its weight says.
//
//   sources   a list of sections as `data` itself, without `sampling` and `evals`, each with
//     name    what its evaluation set is called; default: source-0, ...
//     weight  its share of the draws against the others'; default: its number of samples, so that every sample is
//             drawn equally often
//
// An epoch has as many draws as all sources have samples. The evaluation set of the first source that has one comes
// first, and decides what is best; those of the others are further ones. All sources have entries of the same form.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/data/readers.hpp"

namespace lockstep {
namespace {

/// One set after the other.
class JoinedDataset : public Dataset {
 public:
  explicit JoinedDataset(std::vector<std::shared_ptr<const Dataset>> sets) : sets_(std::move(sets)) {
    for (const auto& set : sets_) starts_.push_back(size_), size_ += set->size();
  }

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = sets_.front()->entries(rows);
    for (const auto& set : sets_) {
      const std::vector<EntrySpec> more = set->entries(rows);
      for (std::size_t i = 0; i < entries.size(); ++i) entries[i].below = std::max(entries[i].below, more[i].below);
    }
    return entries;
  }
  std::int64_t size() const override { return size_; }
  Tensors read(const std::vector<std::int64_t>& samples) const override { return gathered(samples, {}); }
  Tensors draw(const std::vector<std::int64_t>& samples, std::int64_t first) const override {
    return gathered(samples, first);
  }
  bool reads_in_parallel() const override {
    return std::all_of(sets_.begin(), sets_.end(), [](const auto& set) { return set->reads_in_parallel(); });
  }
  bool is_in_memory() const override {
    return std::all_of(sets_.begin(), sets_.end(), [](const auto& set) { return set->is_in_memory(); });
  }
  std::string place_of(std::int64_t sample) const override {
    const std::size_t set = set_of(sample);
    return sets_[set]->place_of(sample - starts_[set]);
  }

 private:
  std::size_t set_of(std::int64_t sample) const {
    LOCKSTEP_CHECK(sample >= 0 && sample < size_, "sample ", sample, " of ", size_);
    return static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), sample) - starts_.begin()) - 1;
  }

  /// Sample by sample: what is random in each goes by its own number.
  Tensors gathered(const std::vector<std::int64_t>& samples, std::optional<std::int64_t> first) const {
    std::vector<Tensors> parts;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::size_t set = set_of(samples[i]);
      const std::vector<std::int64_t> one = {samples[i] - starts_[set]};
      parts.push_back(first ? sets_[set]->draw(one, *first + static_cast<std::int64_t>(i)) : sets_[set]->read(one));
    }
    Tensors joined;
    const at::NoGradGuard no_grad;
    for (std::size_t entry = 0; entry < parts.front().size(); ++entry) {
      std::vector<std::int64_t> sizes = parts.front()[entry].sizes().vec();
      sizes[0] = static_cast<std::int64_t>(samples.size());
      at::Tensor all = at::empty(sizes, parts.front()[entry].options());
      for (std::size_t i = 0; i < parts.size(); ++i)
        all.select(0, static_cast<std::int64_t>(i)).copy_(parts[i][entry][0]);
      joined.push_back(std::move(all));
    }
    return joined;
  }

  std::vector<std::shared_ptr<const Dataset>> sets_;
  std::vector<std::int64_t> starts_;  // the first sample of each
  std::int64_t size_ = 0;
};

/// "x float32 [4], targets int64 []": what has to be the same.
std::string form_of(const Dataset& set) {
  std::vector<std::string> entries;
  for (const EntrySpec& entry : set.entries(1))
    entries.push_back(concat(entry.name, " ", c10::toString(entry.dtype), " [",
                             join(std::vector<std::int64_t>(entry.sizes.begin() + 1, entry.sizes.end())), "]"));
  return join(entries);
}

DataSplits open_mixture(const Section& section, const DataContext& context) {
  const std::vector<Section> sources = section.sections("sources");
  section.finish();
  if (sources.size() < 2) throw section.unexpected("sources", "at least two sections like `data` itself");
  DataSplits splits;
  DataRecord record;
  bool recorded = true;
  std::vector<std::shared_ptr<const Dataset>> sets;
  std::int64_t start = 0;
  for (const Section& source : sources) {
    const auto name = source.get<std::string>("name", concat("source-", sets.size()), not_empty());
    DataContext own = context;
    own.trained.reset();
    DataSplits opened = open_data(source.without({"name", "weight"}), own, *context.readers);
    if (!sets.empty() && form_of(*opened.train) != form_of(*sets.front()))
      throw source.error("type", concat("got samples of the form ", form_of(*opened.train), ", expected ",
                                        form_of(*sets.front()), " as the first source has"));
    SampleGroup& group = splits.sampling.groups.emplace_back();
    group.samples.resize(static_cast<std::size_t>(opened.train->size()));
    std::iota(group.samples.begin(), group.samples.end(), start);
    start += opened.train->size();
    group.weight = source.get("weight", static_cast<double>(opened.train->size()), above(0.0));
    sets.push_back(opened.train);
    if (opened.eval && splits.eval)
      splits.further_evals.push_back({name, opened.eval});
    else if (opened.eval)
      splits.eval = opened.eval;
    for (std::string& note : opened.notes) splits.notes.push_back(concat(name, ": ", note));
    recorded = recorded && opened.record;
    if (!opened.record) continue;
    record.train.insert(record.train.end(), opened.record->train.begin(), opened.record->train.end());
    record.eval.insert(record.eval.end(), opened.record->eval.begin(), opened.record->eval.end());
  }
  splits.train = std::make_shared<JoinedDataset>(std::move(sets));
  if (recorded) splits.record = std::move(record);
  return splits;
}

}  // namespace

DataReader mixture_reader() {
  return {"mixture", "samples of several sources, drawn by weights", open_mixture};
}

}  // namespace lockstep
