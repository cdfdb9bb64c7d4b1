// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_features.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/data/csv_text.hpp"

namespace lockstep {
namespace {

using Missing = MissingRule::Kind;

constexpr std::size_t kMostCategories = 1000;
constexpr std::int32_t kNoCategory = -2;  // a text that is no category, where that is allowed

std::string advice_on_missing(const TableSplit& split, int column, bool is_answered) {
  if (is_answered) return "the model was trained without such rows: fill the cell, or train with missing: indicator";
  return concat("missing: {", split.name_of(column),
                ": drop | mean | indicator | NUMBER} says what to do with such cells");
}

/// One column of features, decoded; all rows of the split.
struct FeatureColumn {
  int column = 0;
  std::string name;
  ColumnKind kind = ColumnKind::number;
  MissingRule rule;
  std::vector<double> numbers;  ///< NaN: missing; unless categories
  NamedCells cells;             ///< of categories
  double fill = 0;              ///< in place of a missing number
  ColumnScaling scaling;        ///< mean 0 and deviation 0: none
  std::int64_t first = 0;       ///< feature
  std::int64_t indicator = -1;  ///< feature; -1: none
  std::int64_t missing = 0;     ///< cells, of all rows

  bool is_category() const { return kind == ColumnKind::category; }
  bool is_missing(std::int64_t row) const {
    const auto at = static_cast<std::size_t>(row);
    return is_category() ? cells.codes[at] == NamedCells::kMissing : std::isnan(numbers[at]);
  }
};

/// One set, on its way from cells to tensors.
class Decoder {
 public:
  Decoder(TableSplit& split, const TablePlan& plan, const TableOptions& options, bool teaches, TableLearnt& learnt)
      : split_(split), plan_(plan), options_(options), teaches_(teaches), learnt_(learnt), kept_(split.rows()) {}

  DecodedTable decode() {
    DecodedTable table;
    std::vector<FeatureColumn> features;
    for (const int column : plan_.features) {
      features.push_back(read_feature(column));
      if (std::find(plan_.targets.begin(), plan_.targets.end(), column) == plan_.targets.end()) split_.drop(column);
    }
    const bool is_classification = plan_.has_classes;
    std::vector<std::int64_t> classes;
    std::vector<std::vector<double>> numbers;
    if (is_classification)
      classes = classes_of(split_, plan_, teaches_, learnt_, kept_);
    else
      for (const int target : plan_.targets) numbers.push_back(read_target(target));
    for (const int column : plan_.targets) split_.drop(column);
    std::vector<double> weights;
    if (plan_.sample_weights >= 0) {
      weights = read_target(plan_.sample_weights);
      split_.drop(plan_.sample_weights);
    }
    table.rows = kept_.rows();
    if (table.rows.empty() && split_.rows() > 0)
      throw DataError(concat(split_.first_path(), ": got no row without missing cells of the ", split_.rows(),
                             " rows, expected at least one: missing: drop leaves them all out"));
    check_scaled(features);
    for (FeatureColumn& feature : features) fill(feature, table.rows);
    table.x = to_x(features, static_cast<std::int64_t>(table.rows.size()));
    for (const FeatureColumn& feature : features) table.contents.push_back(content_of(feature));
    if (const std::int64_t left_out = split_.rows() - static_cast<std::int64_t>(table.rows.size()); left_out > 0)
      table.contents.push_back(concat(left_out, " of ", split_.rows(), " rows left out, for missing cells"));
    if (!weights.empty()) table.weights = to_tensor({weights}, table.rows).flatten();
    table.targets = is_classification ? to_tensor(classes, table.rows) : to_tensor(numbers, table.rows);
    return table;
  }

 private:
  /// Said by hand, taught before, or found now.
  ColumnKind kind_of_feature(int column, const std::string& name) {
    const auto said = plan_.kinds.find(column);
    const auto known = learnt_.kinds.find(name);
    if (said == plan_.kinds.end() && known != learnt_.kinds.end()) return column_kind(known->second);
    ColumnKind kind = ColumnKind::number;
    if (said != plan_.kinds.end())
      kind = said->second;
    else if (teaches_)
      kind = kind_of(split_, column);
    if (teaches_ && kind != ColumnKind::number) learnt_.kinds[name] = to_string(kind);
    return kind;
  }

  FeatureColumn read_feature(int column) {
    FeatureColumn feature;
    feature.column = column;
    feature.name = split_.name_of(column);
    feature.rule = plan_.rule_of(column);
    feature.kind = kind_of_feature(column, feature.name);
    if (feature.is_category())
      feature.cells = names_of(split_, column, kMostCategories);
    else
      feature.numbers = numbers_of(split_, column, feature.kind,
                                   concat("; if the column holds names, write categories: [", feature.name, "]"));
    if (options_.unrecorded)
      for (double& number : feature.numbers) number = static_cast<float>(number);
    const bool has_mean =
        feature.kind == ColumnKind::number || feature.kind == ColumnKind::date || feature.kind == ColumnKind::boolean;
    if (feature.rule.kind == Missing::mean && !has_mean) feature.rule.kind = Missing::refuse;
    for (std::int64_t row = 0; row < split_.rows(); ++row) feature.missing += feature.is_missing(row) ? 1 : 0;
    if (feature.missing == 0) return feature;
    const bool refuses_category =
        feature.is_category() && feature.rule.kind == Missing::refuse && !options_.is_answered;
    apply_missing(
        split_, feature.rule.kind, column, refuses_category ? "a category" : "a number",
        refuses_category
            ? concat("missing: {", feature.name, ": drop | indicator | TEXT} says what to do with such cells")
            : advice_on_missing(split_, column, options_.is_answered),
        [&](std::int64_t row) { return feature.is_missing(row); }, kept_);
    return feature;
  }

  static bool has_nan(const std::vector<double>& numbers) {
    return std::any_of(numbers.begin(), numbers.end(), [](double number) { return std::isnan(number); });
  }

  /// From numbers of values to numbers of categories, which are those of the rows that are left.
  void number_categories(FeatureColumn& feature, const std::vector<std::int64_t>& rows) {
    NamedCells& cells = feature.cells;
    std::vector<std::string>& known = learnt_.categories[feature.name];
    const bool fills = feature.rule.kind == Missing::value;
    std::vector<std::int64_t> first(cells.values.size(), -1);  // by value: the row
    for (const std::int64_t row : rows)
      if (const std::int32_t code = cells.codes[static_cast<std::size_t>(row)]; code >= 0)
        if (auto& at = first[static_cast<std::size_t>(code)]; at < 0) at = row;
    if (teaches_ && known.empty()) {
      for (std::size_t value = 0; value < cells.values.size(); ++value)
        if (first[value] >= 0) known.push_back(cells.values[value]);
      if (fills && std::find(known.begin(), known.end(), feature.rule.value) == known.end())
        known.push_back(feature.rule.value);
      sort_names(known);
    }
    std::vector<std::int32_t> places;  // by value: among the known ones
    for (std::size_t value = 0; value < cells.values.size(); ++value) {
      places.push_back(place_of(known, cells.values[value]));
      if (places.back() == kNoCategory && first[value] >= 0 && !options_.unknown_is_zeros)
        split_.fail(first[value], feature.column,
                    concat("got ", in_quotes(cells.values[value]), ", expected one of the ", known.size(),
                           " categories of the training data: ", shown(known),
                           "; unknown: zeros takes others for none of them"));
    }
    const std::int32_t fill = fills ? place_of(known, feature.rule.value) : NamedCells::kMissing;
    for (std::int32_t& code : cells.codes) code = code < 0 ? fill : places[static_cast<std::size_t>(code)];
  }

  static std::string shown(const std::vector<std::string>& names) {
    constexpr std::size_t most = 12;
    if (names.size() <= most) return join(names);
    return join(std::vector<std::string>(names.begin(), names.begin() + most)) + ", ...";
  }

  static std::int32_t place_of(const std::vector<std::string>& names, const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    return found == names.end() ? kNoCategory : static_cast<std::int32_t>(found - names.begin());
  }

  std::vector<double> read_target(int column) {
    const ColumnKind kind = kind_of(split_, column);
    const bool as_numbers = kind == ColumnKind::category;  // the first cell then says what is wrong
    std::vector<double> numbers = numbers_of(split_, column, as_numbers ? ColumnKind::number : kind);
    if (!has_nan(numbers)) return numbers;
    apply_missing(
        split_, plan_.rule_of(column).kind, column, "a number",
        concat("a target is not filled; missing: {", split_.name_of(column), ": drop} leaves such rows out"),
        [&](std::int64_t row) { return std::isnan(numbers[static_cast<std::size_t>(row)]); }, kept_);
    return numbers;
  }

  /// The rows that are samples, and a number in place of what is missing. The mean is learnt.
  void fill(FeatureColumn& feature, const std::vector<std::int64_t>& rows) {
    const bool all = static_cast<std::int64_t>(rows.size()) == split_.rows();
    if (feature.is_category()) number_categories(feature, rows);
    if (feature.is_category() && !all) {
      for (std::size_t i = 0; i < rows.size(); ++i)
        feature.cells.codes[i] = feature.cells.codes[static_cast<std::size_t>(rows[i])];
      feature.cells.codes.resize(rows.size());
    } else if (!all) {
      for (std::size_t i = 0; i < rows.size(); ++i)
        feature.numbers[i] = feature.numbers[static_cast<std::size_t>(rows[i])];
      feature.numbers.resize(rows.size());
    }
    const Missing rule = feature.rule.kind;
    if (rule == Missing::indicator && teaches_ && !is_indicated(feature)) {
      bool any = feature.rule.named;
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(rows.size()) && !any; ++i) any = feature.is_missing(i);
      if (any) learnt_.indicators.push_back(feature.name);
    }
    if (!feature.is_category() && rule != Missing::refuse && rule != Missing::drop) feature.fill = find_fill(feature);
  }

  bool is_indicated(const FeatureColumn& feature) const {
    const std::vector<std::string>& all = learnt_.indicators;
    return feature.rule.kind == Missing::indicator && std::find(all.begin(), all.end(), feature.name) != all.end();
  }

  /// What takes the place of a missing number.
  double find_fill(const FeatureColumn& feature) {
    if (feature.rule.kind == Missing::value) {
      double number = 0;
      if (!is_number(feature.rule.value) || read_number(feature.rule.value, number).ec != std::errc() ||
          std::isinf(number))
        throw DataError(concat(split_.first_path(), ": ", split_.title_of(feature.column), ": missing: got ",
                               in_quotes(feature.rule.value),
                               ", expected refuse, drop, mean, indicator or a number: the column holds numbers"));
      return number;
    }
    const auto known = learnt_.missing.find(feature.name);
    if (known != learnt_.missing.end()) return known->second;
    double sum = 0;
    std::int64_t count = 0;
    for (const double number : feature.numbers)
      if (!std::isnan(number)) sum += number, ++count;
    if (count == 0)
      throw DataError(
          concat(split_.first_path(), ": ", split_.title_of(feature.column),
                 ": got no number in any row, expected one at least, for the mean; leave it out with ignore"));
    const double mean = sum / static_cast<double>(count);
    return learnt_.missing[feature.name] = mean;
  }

  /// "x[2-4] column 'colour': category: blue, green, red; 3 of 80 cells missing: indicator x[5]".
  std::string content_of(const FeatureColumn& feature) {
    const std::int64_t last = feature.first + width_of(feature) - 1;
    std::string text = concat("x[", feature.first, last > feature.first ? concat("-", last) : "", "] ",
                              split_.title_of(feature.column), ": ", to_string(feature.kind));
    if (feature.is_category()) text += concat(": ", shown(learnt_.categories[feature.name]));
    if (feature.missing > 0)
      text += concat("; ", feature.missing, " of ", split_.rows(), " cells missing: ", fill_text(feature));
    return one_line(text);
  }

  static std::string fill_text(const FeatureColumn& feature) {
    const std::string indicator = feature.indicator < 0 ? "" : concat(", indicator x[", feature.indicator, "]");
    switch (feature.rule.kind) {
      case Missing::refuse: return "refused";
      case Missing::drop: return "their rows are left out";
      case Missing::value: return concat("taken for ", feature.rule.value);
      case Missing::mean: return concat("the mean, ", feature.fill);
      case Missing::indicator:
        return concat(feature.is_category() ? "no category" : concat("the mean, ", feature.fill), indicator);
    }
    return "";
  }

  static bool is_scaled(const FeatureColumn& feature) {
    return feature.kind == ColumnKind::number || feature.kind == ColumnKind::date;
  }

  void check_scaled(const std::vector<FeatureColumn>& features) const {
    if (!options_.normalize || learnt_.scaling.empty()) return;
    const auto scaled = static_cast<std::size_t>(std::count_if(features.begin(), features.end(), is_scaled));
    if (learnt_.scaling.size() != scaled)
      throw DataError(concat(split_.first_path(), ": got ", scaled, " features, expected ", learnt_.scaling.size(),
                             ", of which the checkpoint has the scaling"));
  }

  std::int64_t width_of(const FeatureColumn& feature) {
    return feature.is_category() ? static_cast<std::int64_t>(learnt_.categories[feature.name].size()) : 1;
  }

  at::Tensor to_x(std::vector<FeatureColumn>& features, std::int64_t rows) {
    const bool learns_scaling = options_.normalize && learnt_.scaling.empty();
    std::int64_t width = 0;
    std::size_t scaled = 0;
    for (FeatureColumn& feature : features) {
      feature.first = width;
      width += width_of(feature);
      if (is_indicated(feature)) feature.indicator = width++;
      if (feature.is_category() || !options_.normalize || !is_scaled(feature)) continue;
      if (learns_scaling) {
        const std::vector<double> numbers = filled(feature);
        learnt_.scaling.push_back(scaling_of(scaled_name(feature), numbers, !options_.unrecorded));
      }
      feature.scaling = learnt_.scaling[scaled++];
    }
    at::Tensor x = at::empty({rows, width}, at::kFloat);
    auto* out = x.mutable_data_ptr<float>();
    constexpr std::int64_t block = 1024;  // rows that stay in the cache until all features are in them
    for (std::int64_t begin = 0; begin < rows; begin += block)
      for (const FeatureColumn& feature : features) write(feature, begin, std::min(begin + block, rows), out, width);
    return x;
  }

  /// These rows of x.
  void write(const FeatureColumn& feature, std::int64_t begin, std::int64_t end, float* x, std::int64_t width) {
    if (feature.indicator >= 0)
      for (std::int64_t row = begin; row < end; ++row)
        x[row * width + feature.indicator] = feature.is_missing(row) ? 1 : 0;
    const std::int64_t count = width_of(feature);
    const double deviation = feature.scaling.deviation > 0 ? feature.scaling.deviation : 1;
    for (std::int64_t row = begin; row < end; ++row) {
      float* const out = x + row * width + feature.first;
      if (feature.is_category()) {
        const std::int32_t code = feature.cells.codes[static_cast<std::size_t>(row)];
        std::fill(out, out + count, 0.0F);
        if (code >= 0) out[code] = 1;
      } else {
        const double number = feature.numbers[static_cast<std::size_t>(row)];
        *out = static_cast<float>(((std::isnan(number) ? feature.fill : number) - feature.scaling.mean) / deviation);
      }
    }
  }

  static std::vector<double> filled(const FeatureColumn& feature) {
    std::vector<double> numbers = feature.numbers;
    for (double& number : numbers)
      if (std::isnan(number)) number = feature.fill;
    return numbers;
  }

  /// As it stands in the file, not as it is told apart from others.
  std::string scaled_name(const FeatureColumn& feature) const {
    const std::vector<std::string>& names = split_.columns().names;
    return names.empty() ? feature.name : names[static_cast<std::size_t>(feature.column)];
  }

  static at::Tensor to_tensor(const std::vector<std::int64_t>& classes, const std::vector<std::int64_t>& rows) {
    at::Tensor tensor = at::empty({static_cast<std::int64_t>(rows.size())}, at::kLong);
    auto* out = tensor.mutable_data_ptr<std::int64_t>();
    for (const std::int64_t row : rows) *out++ = classes[static_cast<std::size_t>(row)];
    return tensor;
  }

  static at::Tensor to_tensor(const std::vector<std::vector<double>>& columns, const std::vector<std::int64_t>& rows) {
    at::Tensor tensor =
        at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(columns.size())}, at::kFloat);
    auto* out = tensor.mutable_data_ptr<float>();
    for (const std::int64_t row : rows)
      for (const std::vector<double>& column : columns)
        *out++ = static_cast<float>(column[static_cast<std::size_t>(row)]);
    return tensor;
  }

  TableSplit& split_;
  const TablePlan& plan_;
  const TableOptions& options_;
  bool teaches_;
  TableLearnt& learnt_;
  KeptRows kept_;
};

}  // namespace

DecodedTable decode_table(TableSplit& split, const TablePlan& plan, const TableOptions& options, bool teaches,
                          TableLearnt& learnt) {
  return Decoder(split, plan, options, teaches, learnt).decode();
}

}  // namespace lockstep
