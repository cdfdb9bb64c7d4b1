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
//   sample_weights   a column: what each row counts in the loss
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
    auto eval = split_of("eval", options_.eval, known_columns());
    const TablePlan plan = plan_table(section_, options_, *eval);
    DataRecord& record = splits_.record.emplace(trained.record);
    record.eval = eval->files();
    splits_.eval = dataset(eval, plan, false);
    return finish(plan, *eval);
  }

  /// Of these columns, which are looked for by name where both have names.
  DataSplits answered(const TrainedOn& trained) {
    const InputFile& file = *trained.inputs;
    std::optional<KnownColumns> known = known_columns();
    if (known) known->are_csv = false, known->takes_more = true;
    const auto split = std::make_shared<TableSplit>(std::vector{file.path}, options_.format, known);
    const TablePlan plan = plan_table(section_, options_, *split);
    const std::vector<int> kept = kept_columns(file, *split);
    split->keep(kept);
    splits_.record.emplace(trained.record);
    splits_.eval = dataset(split, plan, false, kept);
    if (learnt_.labels.size() == 1) splits_.class_names = learnt_.labels.begin()->second;
    InputColumns& inputs = splits_.inputs.emplace();
    for (const int column : kept) inputs.names.push_back(split->name_of(column));
    if (options_.task != TableTask::classification) inputs.targets = options_.targets;
    inputs.cells = [split, kept, rows = std::move(rows_)](std::int64_t sample) {
      std::vector<std::optional<std::string>> cells;
      const std::int64_t row = rows.empty() ? sample : rows.at(static_cast<std::size_t>(sample));
      for (const int column : kept) cells.push_back(text_of_cell(*split, column, row));
      return cells;
    };
    return std::move(splits_);
  }

 private:
  /// Of the checkpoint, where it says.
  std::optional<KnownColumns> known_columns() const {
    const std::vector<std::string>& names = learnt_.columns;
    if (names.empty()) return std::nullopt;
    return KnownColumns{kTheCheckpoint, static_cast<int>(names.size()), names, true};
  }

  static std::vector<int> kept_columns(const InputFile& file, const TableSplit& split) {
    std::vector<int> kept;
    const std::vector<std::string> names = split.own_names();
    for (const std::string& wanted : file.keep) {
      std::vector<int> found;
      for (std::size_t i = 0; i < names.size(); ++i)
        if (!names[i].empty() && (wanted == "*" || wanted == names[i])) found.push_back(static_cast<int>(i));
      if (found.empty() && wanted != "*")
        throw UserError(concat("--keep: got '", wanted, "', which is no column of ", file.path, ", expected some of ",
                               join(names), ", or '*' for all", did_you_mean(wanted, names)));
      for (const int column : found)
        if (std::find(kept.begin(), kept.end(), column) == kept.end()) kept.push_back(column);
    }
    return kept;
  }

  std::shared_ptr<TableSplit> split_of(const char* key, const std::vector<std::string>& globs,
                                       const std::optional<KnownColumns>& known) const {
    return std::make_shared<TableSplit>(paths_of(section_, key, globs), options_.format, known);
  }

  /// `kept`: columns that are read as they stand, too.
  std::shared_ptr<const Dataset> dataset(const std::shared_ptr<TableSplit>& split, const TablePlan& plan, bool teaches,
                                         const std::vector<int>& kept = {}) {
    split->read(plan.wanted(kept));
    const std::vector<std::string> notes = split->notes();
    splits_.notes.insert(splits_.notes.end(), notes.begin(), notes.end());
    if (options_.reads_tokens()) return token_dataset(split, plan, options_, teaches, learnt_, splits_.notes);
    const SeriesOf series = series_of(*split, plan);
    DecodedTable table = decode_table(*split, plan, options_, teaches, learnt_);
    if (splits_.contents.empty()) splits_.contents = std::move(table.contents);
    if (options_.window) {
      const auto data = window_dataset(split, plan, *options_.window, series, std::move(table), rows_);
      for (const int column : plan.columns()) split->drop(column);
      return data;
    }
    return std::make_shared<TableDataset>(
        table.x, table.targets,
        [split, rows = std::move(table.rows)](std::int64_t sample) {
          return split->place_of(rows.at(static_cast<std::size_t>(sample)));
        },
        table.weights);
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
  std::vector<std::int64_t> rows_;  // of windows, by sample
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

DataSplits answered(const Section& section, TableOptions options, const TrainedOn& trained, const TableLearnt& learnt) {
  if (!suffices(options, learnt))
    throw DataError(
        concat("the checkpoint does not say what its training data taught (scaling, categories, means): it "
               "was written by a version before there was data.json; train again"));
  options.is_answered = options.format.may_be_empty = true;
  options.trained_columns = static_cast<int>(learnt.columns.size());
  if (trained.inputs->format != "auto") options.format.format = trained.inputs->format;
  const auto kept = [](MissingRule& rule) {
    if (rule.kind == MissingRule::Kind::drop) rule.kind = MissingRule::Kind::refuse;
  };
  kept(options.missing);
  for (auto& [name, rule] : options.missing_of) kept(rule);
  if (options.window) options.window->horizon = 0;
  return TableOpening(section, options, learnt).answered(trained);
}

/// `taught`: the record whose lesson counts; null: the training set's own.
DataSplits open_files(const Section& section, const TableOptions& options, const DataContext& context,
                      const DataRecord* taught = nullptr) {
  const TableLearnt before = context.trained ? table_learnt(context.trained->record.learnt) : TableLearnt();
  const bool answers = context.trained && context.trained->inputs;
  DataSplits splits = answers ? answered(section, options, *context.trained, before)
                      : context.trained && !options.eval.empty() && suffices(options, before)
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
      {"csv", "tables of numbers and names as CSV; targets are columns", reader(true), /*takes_inputs=*/true},
      {"table", "the same of CSV, Parquet, Arrow (Hugging Face datasets) and JSON lines; also text, tokens, windows",
       reader(false), /*takes_inputs=*/true}};
}

}  // namespace lockstep
