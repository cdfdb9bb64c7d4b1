// SPDX-License-Identifier: Apache-2.0
//
// {type: csv}: tables of numbers.
//
//   train, eval   a file each; eval may be absent. Both have the same columns.
//   targets       the target columns, by name or 0-based number (a name wins); all others are features, in file order
//   task          regression | classification
//   header        auto | true | false: whether line 1 holds names; auto: it does when no cell of it is a number. A
//                 first line of numbers that looks like names (0, 1, 2, ...; years) is taken for a sample, with a note
//   delimiter     one character, default ","
//   normalize     true: features get the mean 0 and the standard deviation 1 of the training split, in both splits; a
//                 constant feature becomes 0. Targets stay as they are. Computed in double from the text, then
//                 rounded to float32, so that large numbers with small differences (times) keep them
//
// x float32 [rows, features]. Regression: targets float32 [rows, target columns]. Classification: one target column of
// class indices (0, 1, 2, ...; "2.0" is 2), targets int64 [rows].
//
// A line is a row; blank lines, a byte-order mark, "\r" at line ends, and spaces or tabs around a cell are passed over.
// Every cell must be a finite number that float32 can hold: no gaps, no quotes (except around names), no comments.
// Errors name file:line:column, counted from 1, the column in bytes at the cell's first. A file is read whole: memory
// peaks at its size plus 4 bytes a cell (8 with normalize), twice.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/table_dataset.hpp"

namespace lockstep {
namespace {

struct CsvOptions {
  std::string train, eval;  ///< eval may be empty
  std::vector<std::string> targets;
  bool classification = false;
  std::string header;
  char delimiter = ',';
  bool normalize = false;
  /// With normalize: as it was before checkpoints recorded the arithmetic (DataSplits::unrecorded), which rounded to
  /// float32 first.
  bool unrecorded = false;
};

/// One split, row after row.
struct CsvTable {
  std::vector<std::string> names;  ///< of all columns; empty without a header
  int columns = 0;
  std::vector<float> x;
  std::vector<double> wide_x;  ///< instead of x, until it is normalised
  std::vector<int> lines;      ///< by row
  std::vector<std::string> notes;
  std::vector<float> targets;         ///< regression
  std::vector<std::int64_t> classes;  ///< classification
};

constexpr int kFeature = -1;

/// What stands where: the same for both splits.
struct ColumnPlan {
  std::vector<int> slot;  ///< by column: its place among the targets, or kFeature
  int targets = 0;
  int features() const { return static_cast<int>(slot.size()) - targets; }
};

CsvOptions read_options(const Section& section) {
  const Rule<std::string> one_character = {
      "one character that no number contains", [](const std::string& text) {
        return text.size() == 1 && !std::isalnum(static_cast<unsigned char>(text[0])) &&
               std::string_view("+-.\"\n\r").find(text[0]) == std::string_view::npos;
      }};
  CsvOptions options;
  options.train = section.get<std::string>("train", not_empty());
  options.eval = section.has("eval") ? section.get<std::string>("eval", not_empty()) : "";
  options.targets = section.list<std::string>("targets", not_empty());
  options.classification = section.get<std::string>("task", one_of({"regression", "classification"})) != "regression";
  options.header = section.get<std::string>("header", "auto", one_of({"auto", "true", "false"}));
  options.delimiter = section.get<std::string>("delimiter", ",", one_character)[0];
  options.normalize = section.get<bool>("normalize", false);
  section.finish();
  if (options.targets.empty()) throw section.unexpected("targets", "at least one column");
  if (options.classification && options.targets.size() > 1) {
    throw section.unexpected("targets", "one column, which holds the class");
  }
  return options;
}

/// Reads one file: first its columns, then, when it is known what they are, its rows.
class CsvFile {
 public:
  CsvFile(const std::string& path, const CsvOptions& options)
      : path_(path), options_(options), text_(read_file(path)), lines_(text_) {
    if (const std::string format = foreign_format(text_); !format.empty()) throw DataError(concat(path_, ": ", format));
    read_columns();
  }

  const std::vector<std::string>& names() const { return table_.names; }
  int columns() const { return table_.columns; }

  CsvTable read_rows(const ColumnPlan& plan) {
    plan_ = &plan;
    row_targets_.resize(static_cast<std::size_t>(plan.targets));
    std::int64_t rows = 0;
    for (auto line = std::exchange(first_row_, std::nullopt); line || (line = lines_.next()); line.reset(), ++rows) {
      table_.lines.push_back(lines_.number());
      read_row(*line);
    }
    if (rows == 0) throw DataError(concat(path_, ": got no rows, expected at least one"));
    if (doubt_.is_doubtful())
      note(concat("the first line (", in_quotes(first_line_),
                  ") is taken for a sample, but looks like names of columns: ",
                  "write header: true if it is, header: false if it is not"));
    note_unnamed(plan);
    return std::move(table_);
  }

 private:
  void read_columns() {
    const auto line = lines_.next();
    if (!line) throw DataError(concat(path_, ": got an empty file, expected rows of numbers"));
    std::vector<std::string> cells = split_names(*line, options_.delimiter);
    if (cells.size() == 1) check_delimiter(*line);
    table_.columns = static_cast<int>(cells.size());
    const bool header =
        options_.header == "true" || (options_.header == "auto" && std::none_of(cells.begin(), cells.end(), is_number));
    if (header) {
      table_.names = std::move(cells);
      return;
    }
    first_row_ = line;
    first_line_ = *line;
    if (options_.header == "auto") doubt_ = HeaderDoubt(cells);
  }

  /// A line of one cell that another delimiter would split.
  void check_delimiter(std::string_view line) const {
    for (const char other : std::string_view(",;\t|"))
      if (line.find(other) != std::string_view::npos)
        throw DataError(concat(path_, ":", lines_.number(), ": got a line without ", shown(options_.delimiter),
                               ", the delimiter, but with ", shown(other), "; write delimiter: ", shown(other)));
  }
  static std::string shown(char delimiter) { return delimiter == '\t' ? "\"\\t\"" : concat("'", delimiter, "'"); }

  void note_unnamed(const ColumnPlan& plan) {
    for (std::size_t column = 0; column < table_.names.size(); ++column)
      if (table_.names[column].empty() && plan.slot[column] == kFeature)
        note(concat("column ", column, " has no name and is taken for a feature; if it only numbers the rows (pandas ",
                    "writes such a column unless told index=False), remove it"));
  }
  void note(const std::string& text) { table_.notes.push_back(one_line(concat(path_, ": ", text))); }

  void read_row(std::string_view line) {
    std::size_t begin = 0;
    for (int column = 0;; ++column) {
      const std::size_t end = std::min(line.find(options_.delimiter, begin), line.size());
      if (column == table_.columns) fail_ragged(line, begin);
      const std::string_view cell = trimmed(line.substr(begin, end - begin));
      store(column, cell, begin);
      doubt_.look(static_cast<std::int64_t>(table_.lines.size()) - 1, column, cell);
      if (end == line.size()) {
        if (column + 1 < table_.columns) fail_ragged(line, end);
        break;
      }
      begin = end + 1;
    }
    if (!options_.classification) {
      table_.targets.insert(table_.targets.end(), row_targets_.begin(), row_targets_.end());
    }
  }

  void store(int column, std::string_view cell, std::size_t begin) {
    const int slot = plan_->slot[static_cast<std::size_t>(column)];
    const double number = to_number(column, cell, begin);
    if (slot == kFeature && options_.normalize) {
      table_.wide_x.push_back(options_.unrecorded ? static_cast<float>(number) : number);
    } else if (slot == kFeature) {
      table_.x.push_back(static_cast<float>(number));
    } else if (options_.classification) {
      table_.classes.push_back(to_class(column, cell, begin, number));
    } else {
      row_targets_[static_cast<std::size_t>(slot)] = static_cast<float>(number);
    }
  }

  double to_number(int column, std::string_view cell, std::size_t begin) const {
    if (cell.empty()) fail(column, begin, "got an empty cell, expected a number");
    double number = 0;
    const auto result = read_number(cell, number);
    if (result.ec == std::errc::invalid_argument || result.ptr != cell.data() + cell.size()) {
      const bool maybe_header = options_.header != "true" && lines_.number() == 1;
      fail(column, begin,
           concat("got ", in_quotes(cell), ", expected a number",
                  maybe_header ? "; if line 1 holds names, write header: true" : what_it_may_be(cell)));
    }
    if (std::isnan(number) || std::isinf(number)) {
      fail(column, begin, concat("got ", in_quotes(cell), ", expected a finite number"));
    }
    if (result.ec != std::errc() || std::abs(number) > std::numeric_limits<float>::max()) {
      fail(column, begin, concat("got ", in_quotes(cell), ", expected a number that float32 can hold"));
    }
    return number;
  }

  static const char* what_it_may_be(std::string_view cell) {
    if (cell.starts_with('"')) return "; numbers stand without quotes";
    const bool one_comma = std::count(cell.begin(), cell.end(), ',') == 1;
    std::string with_point(cell);
    std::replace(with_point.begin(), with_point.end(), ',', '.');
    return one_comma && is_number(with_point) ? "; decimals are written with a point" : "";
  }

  std::int64_t to_class(int column, std::string_view cell, std::size_t begin, double number) const {
    constexpr double most = std::numeric_limits<std::int32_t>::max();
    if (number < 0 || number > most || number != std::floor(number)) {
      fail(column, begin, concat("got ", in_quotes(cell), ", expected a class index: 0, 1, 2, ..."));
    }
    return static_cast<std::int64_t>(number);
  }

  [[noreturn]] void fail(int column, std::size_t begin, const std::string& message) const {
    const std::string name = table_.names.empty()
                                 ? concat("column ", column, " (from 0)")
                                 : concat("column ", in_quotes(table_.names[static_cast<std::size_t>(column)]));
    throw DataError(concat(path_, ":", lines_.number(), ":", begin + 1, ": ", name, ": ", message));
  }

  [[noreturn]] void fail_ragged(std::string_view line, std::size_t begin) const {
    const auto cells = std::count(line.begin(), line.end(), options_.delimiter) + 1;
    throw DataError(concat(path_, ":", lines_.number(), ":", begin + 1, ": got ", cells, " cells, expected ",
                           table_.columns, " as in the first line"));
  }

  std::string path_;
  const CsvOptions& options_;
  std::string text_;
  Lines lines_;
  CsvTable table_;
  std::optional<std::string_view> first_row_;  ///< when the first line is no header
  std::string_view first_line_;                ///< the same, for good
  HeaderDoubt doubt_;
  const ColumnPlan* plan_ = nullptr;
  std::vector<float> row_targets_;
};

/// The column that `target` names or numbers.
int find_column(const Section& section, const std::string& target, const CsvFile& file, const std::string& path) {
  const std::vector<std::string>& names = file.names();
  const auto named = std::count(names.begin(), names.end(), target);
  if (named > 1) {
    throw section.error("targets", concat("got '", target, "', the name of ", named, " columns of ", path,
                                          ", expected one column; write its 0-based number"));
  }
  if (named == 1) return static_cast<int>(std::find(names.begin(), names.end(), target) - names.begin());
  int number = 0;
  const auto result = std::from_chars(target.data(), target.data() + target.size(), number);
  const bool numeric = result.ec == std::errc() && result.ptr == target.data() + target.size();
  if (numeric && number >= 0 && number < file.columns()) return number;
  const std::string numbers = concat("a number from 0 to ", file.columns() - 1);
  throw section.error("targets", concat("got '", target, "', which is no column of ", path, ", expected ",
                                        names.empty() ? concat(numbers, " (the file has no header)")
                                                      : concat("one of ", join(names), ", or ", numbers),
                                        did_you_mean(target, names)));
}

ColumnPlan plan_columns(const Section& section, const CsvOptions& options, const CsvFile& file) {
  ColumnPlan plan;
  plan.slot.assign(static_cast<std::size_t>(file.columns()), kFeature);
  for (const std::string& target : options.targets) {
    int& slot = plan.slot[static_cast<std::size_t>(find_column(section, target, file, options.train))];
    if (slot != kFeature) throw section.error("targets", concat("got column '", target, "' twice, expected it once"));
    slot = plan.targets++;
  }
  if (plan.features() == 0) {
    throw section.error("targets", concat("got all ", plan.targets, " columns of ", options.train,
                                          ", expected at least one to be left as a feature"));
  }
  return plan;
}

void check_same_columns(const CsvFile& train, const CsvFile& eval, const CsvOptions& options) {
  const bool both_named = !train.names().empty() && !eval.names().empty();
  if (train.columns() == eval.columns() && (!both_named || train.names() == eval.names())) return;
  const auto shown = [](const CsvFile& file) {
    return file.names().empty() ? concat(file.columns(), " columns")
                                : concat(file.columns(), " columns (", join(file.names()), ")");
  };
  throw DataError(concat(options.eval, ": got ", shown(eval), ", expected ", shown(train), " as in ", options.train));
}

/// Mean and standard deviation of every feature, in double and two passes: the first cancels nothing in the second.
/// Means are summed from the first row (`from_first`; not so in what was written before): the sum of 1000 times 14.62
/// divided by 1000 is not 14.62, and a constant feature would have a deviation.
class Normalization {
 public:
  Normalization(const std::vector<double>& x, std::size_t features, bool from_first)
      : mean_(features), deviation_(features) {
    const auto rows = static_cast<double>(x.size() / features);
    const auto origin = [&](std::size_t feature) { return from_first ? x[feature] : 0.0; };
    for (std::size_t i = 0; i < x.size(); ++i) mean_[i % features] += x[i] - origin(i % features);
    for (std::size_t feature = 0; feature < features; ++feature)
      mean_[feature] = origin(feature) + mean_[feature] / rows;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double off = x[i] - mean_[i % features];
      deviation_[i % features] += off * off;
    }
    for (double& deviation : deviation_) deviation = std::sqrt(deviation / rows);
  }
  /// From wide_x to x.
  void apply(CsvTable& table) const {
    const std::vector<double> x = std::exchange(table.wide_x, {});
    table.x.reserve(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double deviation = deviation_[i % mean_.size()];
      table.x.push_back(static_cast<float>((x[i] - mean_[i % mean_.size()]) / (deviation > 0 ? deviation : 1)));
    }
  }

 private:
  std::vector<double> mean_, deviation_;
};

template <typename T>
at::Tensor to_tensor(const std::vector<T>& values, std::vector<std::int64_t> sizes, at::ScalarType dtype) {
  at::Tensor tensor = at::empty(sizes, dtype);
  LOCKSTEP_CHECK(tensor.nbytes() == values.size() * sizeof(T), values.size(), " values");
  std::memcpy(tensor.mutable_data_ptr(), values.data(), tensor.nbytes());
  return tensor;
}

std::shared_ptr<const Dataset> to_dataset(CsvTable& table, const std::string& path, const ColumnPlan& plan,
                                          bool classification) {
  const std::int64_t features = plan.features();
  const std::int64_t rows = static_cast<std::int64_t>(table.x.size()) / features;
  return std::make_shared<TableDataset>(to_tensor(table.x, {rows, features}, at::kFloat),
                                        classification ? to_tensor(table.classes, {rows}, at::kLong)
                                                       : to_tensor(table.targets, {rows, plan.targets}, at::kFloat),
                                        [path, lines = std::move(table.lines)](std::int64_t row) {
                                          return concat(path, ":", lines.at(static_cast<std::size_t>(row)));
                                        });
}

DataSplits open_files(const Section& section, const CsvOptions& options) {
  CsvFile train_file(options.train, options);
  const ColumnPlan plan = plan_columns(section, options, train_file);
  CsvTable train;
  std::optional<CsvTable> eval;
  if (!options.eval.empty()) {
    CsvFile eval_file(options.eval, options);
    check_same_columns(train_file, eval_file, options);
    eval = eval_file.read_rows(plan);
  }
  train = train_file.read_rows(plan);
  if (options.normalize) {
    const Normalization normalization(train.wide_x, static_cast<std::size_t>(plan.features()), !options.unrecorded);
    normalization.apply(train);
    if (eval) normalization.apply(*eval);
  }
  DataSplits splits;
  splits.train = to_dataset(train, options.train, plan, options.classification);
  if (eval) splits.eval = to_dataset(*eval, options.eval, plan, options.classification);
  splits.notes = std::move(train.notes);
  if (eval) splits.notes.insert(splits.notes.end(), eval->notes.begin(), eval->notes.end());
  return splits;
}

DataSplits open_csv(const Section& section, const DataContext&) {
  const CsvOptions options = read_options(section);
  DataSplits splits = open_files(section, options);
  if (!options.normalize) return splits;
  splits.arithmetic = "float64";
  CsvOptions before = options;
  before.unrecorded = true;
  splits.unrecorded = [section, before] { return open_files(section, before); };
  return splits;
}

}  // namespace

DataReader csv_reader() {
  return {"csv", "tables of numbers; targets are columns", open_csv};
}

}  // namespace lockstep
