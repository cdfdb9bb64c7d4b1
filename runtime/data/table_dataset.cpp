// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_dataset.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "runtime/base/check.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {
namespace {

std::vector<std::int64_t> row_sizes(const at::Tensor& table) {
  return table.sizes().slice(1).vec();
}

/// index_select by hand: it would run on LibTorch's thread pool, which belongs to the worker that computes.
at::Tensor rows_of(const at::Tensor& table, const std::vector<std::int64_t>& samples) {
  std::vector<std::int64_t> sizes = table.sizes().vec();
  sizes[0] = static_cast<std::int64_t>(samples.size());
  at::Tensor rows = at::empty(sizes, table.options());
  const std::size_t row_bytes = table.nbytes() / static_cast<std::size_t>(table.size(0));
  const auto* from = static_cast<const char*>(table.const_data_ptr());
  auto* to = static_cast<char*>(rows.mutable_data_ptr());
  for (const std::int64_t sample : samples) {
    LOCKSTEP_CHECK(sample >= 0 && sample < table.size(0), "sample ", sample, " of ", table.size(0));
    std::memcpy(to, from + static_cast<std::size_t>(sample) * row_bytes, row_bytes);
    to += row_bytes;
  }
  return rows;
}

/// EntrySpec::below of a table's entry.
std::int64_t below(const at::Tensor& table) {
  if (table.scalar_type() != at::kLong || table.numel() == 0) return 0;
  const auto* values = table.const_data_ptr<std::int64_t>();
  return *std::max_element(values, values + table.numel()) + 1;
}

EntrySpec entry(const std::string& name, std::int64_t rows, const DataEntry& of) {
  std::vector<std::int64_t> sizes = of.sizes;
  sizes.insert(sizes.begin(), rows);
  return {.name = name, .dtype = of.dtype, .sizes = std::move(sizes), .differentiable = false, .below = of.below};
}

}  // namespace

std::vector<EntrySpec> data_entries(std::int64_t rows, const DataEntry& x, const DataEntry& targets) {
  return {entry("x", rows, x), entry("targets", rows, targets)};
}

TableDataset::TableDataset(at::Tensor x, at::Tensor targets, std::function<std::string(std::int64_t)> place_of,
                           at::Tensor weights)
    : x_(std::move(x)),
      targets_(std::move(targets)),
      weights_(std::move(weights)),
      x_below_(below(x_)),
      targets_below_(below(targets_)),
      place_of_(std::move(place_of)) {
  LOCKSTEP_CHECK(x_.is_contiguous() && targets_.is_contiguous(), "strided");
  LOCKSTEP_CHECK(x_.size(0) == targets_.size(0), x_.size(0), " and ", targets_.size(0), " rows");
}

std::vector<EntrySpec> TableDataset::entries(std::int64_t rows) const {
  std::vector<EntrySpec> entries = data_entries(rows, {x_.scalar_type(), row_sizes(x_), x_below_},
                                                {targets_.scalar_type(), row_sizes(targets_), targets_below_});
  if (weights_.defined()) entries.insert(entries.end() - 1, entry(kSampleWeights, rows, {at::kFloat, {}}));
  return entries;
}

Tensors TableDataset::all() const {
  return weights_.defined() ? Tensors{x_, weights_, targets_} : Tensors{x_, targets_};
}

std::int64_t TableDataset::size() const {
  return x_.size(0);
}

std::vector<std::int64_t> TableDataset::classes() const {
  if (targets_.scalar_type() != at::kLong || targets_.dim() != 1) return {};
  const auto* first = targets_.const_data_ptr<std::int64_t>();
  return {first, first + targets_.numel()};
}

Tensors TableDataset::read(const std::vector<std::int64_t>& samples) const {
  Tensors rows;
  for (const at::Tensor& entry : all()) rows.push_back(rows_of(entry, samples));
  return rows;
}

}  // namespace lockstep
