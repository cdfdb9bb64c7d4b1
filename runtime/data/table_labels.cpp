// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_labels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/data/csv_text.hpp"

namespace lockstep {
namespace {

using Missing = MissingRule::Kind;

constexpr std::size_t kMostLabels = 100'000;

/// Class indices as they stand there.
std::vector<std::int64_t> index_classes(const TableSplit& split, int column) {
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  const std::vector<double> numbers = numbers_of(split, column, ColumnKind::number,
                                                 concat("; of names write categories: [", split.name_of(column), "]"));
  std::vector<std::int64_t> classes;
  classes.reserve(numbers.size());
  for (const double number : numbers) {
    if (!std::isnan(number) && (number < 0 || number > most || number != std::floor(number))) {
      const auto row = static_cast<std::int64_t>(classes.size());
      split.fail(
          row, column,
          concat("got ", shown_cell(split, column, row), ", expected a class index: 0, 1, 2, ...; of names write ",
                 "categories: [", split.name_of(column), "]"));
    }
    classes.push_back(std::isnan(number) ? NamedCells::kMissing : static_cast<std::int64_t>(number));
  }
  return classes;
}

}  // namespace

void sort_names(std::vector<std::string>& names) {
  const auto value = [](const std::string& name) {
    double number = 0;
    read_number(name, number);
    return number;
  };
  if (std::all_of(names.begin(), names.end(), [](const std::string& name) { return is_number(name); }))
    std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) { return value(a) < value(b); });
  else
    std::sort(names.begin(), names.end());
}

std::vector<std::int64_t> KeptRows::rows() const {
  std::vector<std::int64_t> rows;
  for (std::size_t row = 0; row < kept_.size(); ++row)
    if (kept_[row] != 0) rows.push_back(static_cast<std::int64_t>(row));
  return rows;
}

void apply_missing(const TableSplit& split, MissingRule::Kind rule, int column, const char* expected,
                   const std::string& advice, const std::function<bool(std::int64_t)>& is_missing, KeptRows& kept) {
  if (rule != Missing::refuse && rule != Missing::drop) return;
  for (std::int64_t row = 0; row < split.rows(); ++row) {
    if (!is_missing(row)) continue;
    if (rule == Missing::refuse) fail_missing(split, column, row, expected, advice);
    kept.drop(row);
  }
}

std::vector<std::int64_t> classes_of(const TableSplit& split, const TablePlan& plan, bool teaches, TableLearnt& learnt,
                                     KeptRows& kept) {
  const int column = plan.targets.front();
  const std::string name = split.name_of(column);
  const auto known = learnt.labels.find(name);
  const auto said = plan.kinds.find(column);
  const ColumnKind kind = said != plan.kinds.end() ? said->second : kind_of(split, column);
  const bool has_labels = known != learnt.labels.end() || (teaches && kind != ColumnKind::number);
  std::vector<std::int64_t> classes;
  if (!has_labels || (kind == ColumnKind::number && !split.class_names(column).empty())) {
    classes = index_classes(split, column);
    // Indices that the file has names for.
    if (const auto names = split.class_names(column); teaches && !names.empty()) learnt.labels[name] = names;
  } else {
    const NamedCells cells = names_of(split, column, kMostLabels);
    std::vector<std::string>& labels = learnt.labels[name];
    if (labels.empty()) {
      labels = cells.values;
      sort_names(labels);
    }
    std::vector<std::int64_t> places;
    for (std::size_t code = 0; code < cells.values.size(); ++code) {
      const auto found = std::find(labels.begin(), labels.end(), cells.values[code]);
      if (found == labels.end())
        split.fail(cells.first_row_of(static_cast<std::int32_t>(code)), column,
                   concat("got ", in_quotes(cells.values[code]), ", expected one of the ", labels.size(),
                          " labels of the training data: ", join(labels)));
      places.push_back(found - labels.begin());
    }
    for (const std::int32_t code : cells.codes)
      classes.push_back(code < 0 ? NamedCells::kMissing : places[static_cast<std::size_t>(code)]);
  }
  apply_missing(
      split, plan.rule_of(column).kind, column, has_labels ? "a label" : "a class index",
      concat("a target is not filled; missing: {", name, ": drop} leaves such rows out"),
      [&](std::int64_t row) { return classes[static_cast<std::size_t>(row)] < 0; }, kept);
  return classes;
}

}  // namespace lockstep
