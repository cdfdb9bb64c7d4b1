// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/dataset.hpp"

namespace lockstep {
namespace {

std::string shape_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return "no tensor";
  return concat(c10::toString(tensor.scalar_type()), " [", join(tensor.sizes()), "]");
}

std::string names_of(const std::vector<std::int64_t>& samples) {
  constexpr std::size_t shown = 4;
  if (samples.size() <= shown) return join(samples);
  return concat(join(std::vector<std::int64_t>(samples.begin(), samples.begin() + shown)), ", ... (", samples.size(),
                " samples)");
}

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

}  // namespace

std::shared_ptr<const Dataset> absent_dataset(std::shared_ptr<const Dataset> like, std::int64_t size) {
  return std::make_shared<AbsentDataset>(std::move(like), size);
}

std::string class_text(const DataSplits& data, std::int64_t number) {
  const bool named = number >= 0 && number < static_cast<std::int64_t>(data.class_names.size());
  return named ? data.class_names[static_cast<std::size_t>(number)] : concat(number);
}

int evaluation_sets(const DataSplits& data) {
  return data.eval ? 1 + static_cast<int>(data.further_evals.size()) : 0;
}

const Dataset& evaluation_set(const DataSplits& data, int set) {
  return set == 0 ? *data.eval : *data.further_evals.at(static_cast<std::size_t>(set) - 1).data;
}

std::string name_of_set(const DataSplits& data, int set) {
  if (data.further_evals.empty()) return "evaluation set";
  return concat("evaluation set '", set == 0 ? "eval" : data.further_evals[static_cast<std::size_t>(set) - 1].name,
                "'");
}

Tensors read_samples(const Dataset& data, const std::vector<std::int64_t>& samples, std::optional<std::int64_t> first) {
  Tensors read;
  try {
    read = first ? data.draw(samples, *first) : data.read(samples);
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw Error(
        concat("the data set failed to read the samples ", names_of(samples), ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw Error(concat("the data set failed to read the samples ", names_of(samples), ": ", error.what()));
  }
  const std::vector<EntrySpec> promised = data.entries(static_cast<std::int64_t>(samples.size()));
  if (read.size() != promised.size())
    throw DataError(concat("the data set reads ", read.size(), " entries of the samples ", names_of(samples),
                           ", its entries() promises ", promised.size()));
  for (std::size_t i = 0; i < read.size(); ++i) {
    const at::Tensor& tensor = read[i];
    if (tensor.defined() && tensor.scalar_type() == promised[i].dtype &&
        tensor.sizes() == at::IntArrayRef(promised[i].sizes))
      continue;
    throw DataError(concat("the data set reads '", promised[i].name, "' of the samples ", names_of(samples), " as ",
                           shape_of(tensor), ", its entries() promises ", to_string(promised[i])));
  }
  return read;
}

}  // namespace lockstep
