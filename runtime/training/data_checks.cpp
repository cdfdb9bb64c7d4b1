// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/data_checks.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace lockstep {
namespace {

constexpr std::int64_t kNone = -1;

/// By hand: LibTorch's thread pool belongs to the worker that computes, and a loop without branches costs nothing.
template <typename T>
std::int64_t first_outside(const at::Tensor& values, const TargetDomain& domain, T least, T most, T ignored) {
  const T* first = values.const_data_ptr<T>();
  const std::int64_t count = values.numel();
  bool all_inside = true;
  for (std::int64_t i = 0; i < count; ++i)
    all_inside &= ((first[i] >= least) & (first[i] <= most)) | (first[i] == ignored);  // false for NaN
  if (all_inside) return kNone;
  for (std::int64_t i = 0;; ++i) {
    const bool skipped = domain.ignored && first[i] == ignored;
    if (!(first[i] >= least && first[i] <= most) && !skipped) return i;
  }
}

std::int64_t first_outside(const at::Tensor& values, const TargetDomain& domain) {
  if (values.scalar_type() == at::kLong) {
    // Doubles beyond int64 mean no bound.
    const auto bound = [](double number, std::int64_t none) {
      return std::abs(number) < 9e18 ? static_cast<std::int64_t>(number) : none;
    };
    const std::int64_t least = bound(domain.least, std::numeric_limits<std::int64_t>::min());
    return first_outside<std::int64_t>(values, domain, least,
                                       bound(domain.most, std::numeric_limits<std::int64_t>::max()),
                                       domain.ignored.value_or(least));
  }
  if (values.scalar_type() == at::kFloat) {
    const auto least = static_cast<float>(domain.least);
    return first_outside<float>(values, domain, least, static_cast<float>(domain.most), least);
  }
  return first_outside<double>(values.to(at::kDouble), domain, domain.least, domain.most, domain.least);
}

std::string value_text(const at::Tensor& values, std::int64_t at) {
  const at::Tensor value = values.flatten()[at];
  return values.scalar_type() == at::kLong ? concat(value.item<std::int64_t>()) : concat(value.item<double>());
}

void check_entries(const Dataset& data, const char* name, std::int64_t least = 1) {
  if (data.size() < least) throw DataError(concat("the ", name, " data has no samples"));
  constexpr std::int64_t rows = 2;
  const std::vector<EntrySpec> entries = data.entries(rows);
  if (entries.size() < 2)
    throw DataError(
        concat("the ", name, " data has ", entries.size(), " entries, expected the inputs and the targets"));
  for (const EntrySpec& entry : entries)
    if (entry.sizes.empty() || entry.sizes[0] != rows)
      throw DataError(concat("the ", name, " data promises ", to_string(entry), " for ", rows,
                             " samples; an entry has the samples along its first dimension"));
}

}  // namespace

void check_datasets(const DataSplits& data) {
  if (!data.train) throw DataError("there is no training data");
  check_entries(*data.train, "training");
  for (int set = 0; set < evaluation_sets(data); ++set)
    check_entries(evaluation_set(data, set), "evaluation", data.inputs ? 0 : 1);
}

TargetChecks::TargetChecks(const ModelGraph& graph, const Losses& losses) : graph_(graph), losses_(losses) {
  for (std::size_t head = 0; head < losses.size(); ++head)
    domains_.push_back(losses[head]->domain(graph.values[static_cast<std::size_t>(graph.heads[head].output)].spec));
}

void TargetChecks::check(const Dataset& data, const std::vector<std::int64_t>& samples, const Tensors& entries) const {
  for (std::size_t head = 0; head < domains_.size(); ++head) {
    if (head == 0) check_weights(data, samples, entries);
    const at::Tensor targets = entries.at(static_cast<std::size_t>(graph_.heads[head].source)).contiguous();
    const std::int64_t at = first_outside(targets, domains_[head]);
    if (at == kNone) continue;
    const std::int64_t row = at / (targets.numel() / targets.size(0));
    const std::int64_t sample = samples.empty() ? row : samples[static_cast<std::size_t>(row)];
    const std::string place = data.place_of(sample);
    const TargetDomain& domain = domains_[head];
    throw DataError(concat(place.empty() ? "" : place + ": ", "sample ", sample, ": the target is ",
                           value_text(targets, at), ", but the loss ", losses_[head]->name(), " is defined for ",
                           domain.text.empty() ? "numbers" : domain.text,
                           domain.advice.empty() ? "" : "; " + domain.advice));
  }
}

void TargetChecks::check_weights(const Dataset& data, const std::vector<std::int64_t>& samples,
                                 const Tensors& entries) const {
  const int source = graph_.heads.front().weights_source;
  if (source < 0) return;
  const at::Tensor weights = entries.at(static_cast<std::size_t>(source)).contiguous();
  const std::int64_t at = first_outside(weights, {.least = 0, .most = std::numeric_limits<float>::max()});
  if (at == kNone) return;
  const std::int64_t sample = samples.empty() ? at : samples[static_cast<std::size_t>(at)];
  const std::string place = data.place_of(sample);
  throw DataError(concat(place.empty() ? "" : place + ": ", "sample ", sample, ": its weight is ",
                         value_text(weights, at), ", expected a finite number of 0 or more"));
}

void TargetChecks::check_all(const Dataset& data) const {
  if (const Tensors entries = data.all(); !entries.empty()) check(data, {}, entries);
}

void TargetChecks::check_batch(const Dataset& data, const std::vector<std::int64_t>& samples,
                               const Tensors& batch) const {
  if (data.all().empty()) check(data, samples, batch);
}

}  // namespace lockstep
