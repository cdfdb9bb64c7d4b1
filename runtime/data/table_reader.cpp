// SPDX-License-Identifier: Apache-2.0
//
// {type: table}: CSV, Parquet, Arrow and JSON lines, through Apache Arrow; {type: csv} is the same for CSV alone.
//
//   train, eval   a file, a glob(3) pattern or a list of them; eval may be absent. Rows of several files follow each
//                 other in byte order of their paths. gzip and zstd are unpacked
//   format        auto | csv | parquet | arrow | jsonl; auto: by the first bytes and the name
//   task          regression | classification | forecast | next_token
//   targets       the target columns, by name or 0-based number (a name wins)
//   columns       the features, names or patterns; default: all columns that have no other role, in the file's order
//   ignore        columns that are none
//   header, delimiter   of CSV. header auto: line 1 holds names when no cell of it is a number
//   normalize     true: numbers and dates among the features get mean 0 and deviation 1 of the training set, computed
//   in
//                 double, then rounded to float32
//   categories, dates   columns that are meant as such; else table_cells.hpp says what a column is
//   unknown       refuse | zeros: a category that the training set does not have
//   missing       refuse | drop | mean | indicator | a number or a category, or one of these by column
//   window        {length, horizon, stride, group, order, flat}: window_dataset.hpp
//   text, tokens, prompt, answer, context, pad, truncate: token_dataset.hpp
//
// x float32 [rows, features]: a number, a date (days since 1970-01-01) or true and false (1, 0) is one feature, a
// category one per category (1 or 0), an indicator one more behind its column. Regression: targets float32 [rows,
// targets]. Classification: targets int64 [rows], class indices or labels, which are numbered in order.
//
// Memory peaks at about 8 bytes a number and the text of CSV twice.
#include <algorithm>
#include <utility>

#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/table_dataset.hpp"
#include "runtime/data/table_features.hpp"
#include "runtime/data/token_dataset.hpp"
#include "runtime/data/window_dataset.hpp"

namespace lockstep {
namespace {

constexpr const char* kTheCheckpoint = "the training data of the checkpoint";

/// What matches; a name without wildcards is taken as it is, so that reading it says what is wrong with it.
std::vector<std::string> paths_of(const Section& section, const std::string& key,
                                  const std::vector<std::string>& globs) {
  std::vector<std::string> wild, paths;
  for (const std::string& glob : globs) {
    if (glob.find_first_of("*?[") == std::string::npos)
      paths.push_back(glob);
    else
      wild.push_back(glob);
  }
  const std::vector<std::string> matches = files_of(section, key, wild);
  paths.insert(paths.end(), matches.begin(), matches.end());
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

/// One opening of the files of a section.
class TableOpening {
 public:
  TableOpening(const Section& section, const TableOptions& options, TableLearnt learnt)
      : section_(section), options_(options), learnt_(std::move(learnt)) {}

  /// `taught`: `learnt` is a checkpoint's; else the training set teaches.
  DataSplits both(bool taught) {
    auto train = split_of("train", options_.train, {});
    const TablePlan plan = plan_table(section_, options_, *train);
    DataRecord& record = splits_.record.emplace();
    record.train = train->files();
    std::shared_ptr<TableSplit> eval;
    if (!options_.eval.empty()) {
      eval = split_of("eval", options_.eval, train->columns());
      record.eval = eval->files();
    }
    learnt_.columns = train->columns().names;
    splits_.train = dataset(train, plan, !taught);
    note_unnamed(*train, plan);
    if (eval) splits_.eval = dataset(eval, plan, false);
    return finish(plan, *train);
  }

  DataSplits only_eval(const TrainedOn& trained) {
    std::optional<KnownColumns> known;
    if (const auto& names = learnt_.columns; !names.empty())
      known = {kTheCheckpoint, static_cast<int>(names.size()), names, true};
    auto eval = split_of("eval", options_.eval, known);
    const TablePlan plan = plan_table(section_, options_, *eval);
    DataRecord& record = splits_.record.emplace(trained.record);
    record.eval = eval->files();
    splits_.eval = dataset(eval, plan, false);
    return finish(plan, *eval);
  }

 private:
  std::shared_ptr<TableSplit> split_of(const char* key, const std::vector<std::string>& globs,
                                       const std::optional<KnownColumns>& known) const {
    return std::make_shared<TableSplit>(paths_of(section_, key, globs), options_.format, known);
  }

  std::shared_ptr<const Dataset> dataset(const std::shared_ptr<TableSplit>& split, const TablePlan& plan,
                                         bool teaches) {
    split->read(plan.wanted());
    const std::vector<std::string> notes = split->notes();
    splits_.notes.insert(splits_.notes.end(), notes.begin(), notes.end());
    if (options_.reads_tokens()) return token_dataset(split, plan, options_, teaches, learnt_, splits_.notes);
    const SeriesOf series = series_of(*split, plan);
    DecodedTable table = decode_table(*split, plan, options_, teaches, learnt_);
    if (splits_.contents.empty()) splits_.contents = std::move(table.contents);
    if (options_.window) {
      const auto data = window_dataset(split, plan, *options_.window, series, std::move(table));
      for (const int column : plan.columns()) split->drop(column);
      return data;
    }
    return std::make_shared<TableDataset>(table.x, table.targets,
                                          [split, rows = std::move(table.rows)](std::int64_t sample) {
                                            return split->place_of(rows.at(static_cast<std::size_t>(sample)));
                                          });
  }

  void note_unnamed(const TableSplit& split, const TablePlan& plan) {
    const std::vector<std::string>& names = split.columns().names;
    for (const int column : plan.features)
      if (!names.empty() && names[static_cast<std::size_t>(column)].empty())
        splits_.notes.push_back(one_line(concat(
            split.first_path(), ": column ", column, " has no name and is taken for a feature; if it only numbers ",
            "the rows (pandas writes such a column unless told index=False), remove it or write ignore: [\"", column,
            "\"]")));
  }

  DataSplits finish(const TablePlan& plan, const TableSplit& split) {
    splits_.record->learnt = to_json(learnt_);
    if (options_.task == TableTask::classification) {
      const auto labels = learnt_.labels.find(split.name_of(plan.targets.front()));
      if (labels != learnt_.labels.end()) splits_.class_names = labels->second;
    }
    return std::move(splits_);
  }

  const Section& section_;
  const TableOptions& options_;
  TableLearnt learnt_;
  DataSplits splits_;
};

/// Whether an evaluation can do without the training files.
bool suffices(const TableOptions& options, const TableLearnt& learnt) {
  const auto fills = [](const MissingRule& rule) {
    return rule.kind == MissingRule::Kind::mean || rule.kind == MissingRule::Kind::indicator;
  };
  const bool needs_means = fills(options.missing) || std::any_of(options.missing_of.begin(), options.missing_of.end(),
                                                                 [&](const auto& each) { return fills(each.second); });
  return (!options.normalize || !learnt.scaling.empty()) && (!needs_means || !learnt.missing.empty()) &&
         (options.categories.empty() || !learnt.categories.empty() || !learnt.labels.empty());
}

/// `taught`: the record whose lesson counts; null: the training set's own.
DataSplits open_files(const Section& section, const TableOptions& options, const DataContext& context,
                      const DataRecord* taught = nullptr) {
  const TableLearnt before = context.trained ? table_learnt(context.trained->record.learnt) : TableLearnt();
  DataSplits splits = context.trained && !options.eval.empty() && suffices(options, before)
                          ? TableOpening(section, options, before).only_eval(*context.trained)
                          : TableOpening(section, options, taught ? table_learnt(taught->learnt) : TableLearnt())
                                .both(taught != nullptr);
  splits.taught_by = [=](const DataRecord& record) { return open_files(section, options, context, &record); };
  if (!options.normalize || options.unrecorded) return splits;
  splits.arithmetic = "float64";
  TableOptions rounded = options;
  rounded.unrecorded = true;
  splits.unrecorded = [=] { return open_files(section, rounded, context); };
  return splits;
}

}  // namespace

std::vector<DataReader> table_readers() {
  const auto reader = [](bool only_csv) {
    return [=](const Section& section, const DataContext& context) {
      return open_files(section, table_options(section, context, only_csv), context);
    };
  };
  return {
      {"csv", "tables of numbers and names as CSV; targets are columns", reader(true)},
      {"table", "the same of CSV, Parquet, Arrow (Hugging Face datasets) and JSON lines; also text, tokens, windows",
       reader(false)}};
}

}  // namespace lockstep
