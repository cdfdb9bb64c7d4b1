// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_options.hpp"

#include <algorithm>
#include <charconv>

#include "runtime/base/pattern.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/input_files.hpp"

namespace lockstep {
namespace {

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names = {"regression", "classification", "next_token", "forecast"};
  return names;
}

MissingRule missing_rule(const std::string& text, bool named) {
  MissingRule rule{MissingRule::Kind::value, "", named};
  if (text == "refuse") rule.kind = MissingRule::Kind::refuse;
  if (text == "drop") rule.kind = MissingRule::Kind::drop;
  if (text == "mean") rule.kind = MissingRule::Kind::mean;
  if (text == "indicator") rule.kind = MissingRule::Kind::indicator;
  if (rule.kind == MissingRule::Kind::value) rule.value = text;
  return rule;
}

void read_missing(const Section& section, TableOptions& options) {
  if (!section.is_mapping("missing")) {
    options.missing = missing_rule(section.get<std::string>("missing", "refuse", not_empty()), false);
    return;
  }
  const Section rules = section.section("missing");
  for (const std::string& column : rules.keys()) {
    const auto text = rules.get<std::string>(column, not_empty());
    if (column == "default")
      options.missing = missing_rule(text, false);
    else
      options.missing_of.emplace_back(column, missing_rule(text, true));
  }
}

WindowOptions read_window(const Section& section) {
  WindowOptions window;
  const auto positive = at_least<std::int64_t>(1);
  window.length = section.get<std::int64_t>("length", positive);
  window.horizon = section.get<std::int64_t>("horizon", 1, positive);
  window.stride = section.get<std::int64_t>("stride", 1, positive);
  window.group = section.get<std::string>("group", "");
  window.order = section.get<std::string>("order", "");
  window.flat = section.get<bool>("flat", false);
  section.finish();
  return window;
}

std::vector<std::string> names_in(const Section& section, const char* key) {
  return section.list<std::string>(key, {}, not_empty());
}

/// text, tokens, prompt and answer, and what belongs to them.
void read_sequence(const Section& section, const DataContext& context, TableOptions& options) {
  options.text = section.get<std::string>("text", "");
  options.tokens = section.get<std::string>("tokens", "");
  options.prompt = section.get<std::string>("prompt", "");
  options.answer = section.get<std::string>("answer", "");
  if (options.prompt.empty() != options.answer.empty())
    throw section.error(options.prompt.empty() ? "answer" : "prompt", "got one of prompt and answer, expected both");
  if (!options.text.empty() + !options.tokens.empty() + !options.prompt.empty() > 1)
    throw section.error(options.text.empty() ? "tokens" : "text",
                        "got several of text, tokens, and prompt with answer, expected one of them");
  if (!options.reads_tokens()) return;
  const auto positive = at_least<std::int64_t>(1);
  if (!section.has("context") && context.context == 0)
    throw section.unexpected("context", positive.text, "; this model has none that could be the default");
  options.context = section.get("context", context.context, positive);
  options.pad = section.get<std::int64_t>("pad", 0, at_least<std::int64_t>(0));
  options.truncate = section.get<bool>("truncate", false);
}

void check_task(const Section& section, const TableOptions& options) {
  const TableTask task = options.task;
  const bool tokens = options.reads_tokens();
  if (!options.sample_weights.empty() && (tokens || task == TableTask::forecast))
    throw section.unexpected("sample_weights",
                             "none for tokens and forecasts; it is for regression and classification");
  if (tokens && task != TableTask::classification && task != TableTask::next_token)
    throw section.unexpected("task", "next_token or classification, which text and tokens are for");
  if (!options.prompt.empty() && task != TableTask::next_token)
    throw section.unexpected("task", "next_token, which prompt and answer are for");
  if (!tokens && task == TableTask::next_token)
    throw section.unexpected("task", "regression, classification or forecast",
                             "; next_token wants text: COLUMN, tokens: COLUMN, or prompt: and answer:");
  if (options.window.has_value() != (task == TableTask::forecast))
    throw section.error(options.window ? "window" : "task",
                        options.window ? "got a window, expected one with task: forecast only"
                                       : "got forecast without window: {length: ...}, expected both");
  if (task == TableTask::next_token) {
    if (!options.targets.empty())
      throw section.unexpected("targets", "none: the targets of next_token are the next tokens");
    return;
  }
  if (options.targets.empty())
    throw section.has("targets") ? section.unexpected("targets", "at least one column")
                                 : section.error("targets", "missing, expected a list");
  if (task == TableTask::classification && options.targets.size() > 1)
    throw section.unexpected("targets", "one column, which holds the class");
}

}  // namespace

TableOptions table_options(const Section& section, const DataContext& context, bool only_csv) {
  const Rule<std::string> one_character = {
      "one character that no number contains", [](const std::string& text) {
        return text.size() == 1 && !std::isalnum(static_cast<unsigned char>(text[0])) &&
               std::string_view("+-.\"\n\r").find(text[0]) == std::string_view::npos;
      }};
  TableOptions options;
  options.train = read_patterns(section, "train");
  if (section.has("eval")) options.eval = read_patterns(section, "eval");
  options.targets = names_in(section, "targets");
  const auto task = section.get<std::string>("task", one_of(task_names()));
  options.task =
      static_cast<TableTask>(std::find(task_names().begin(), task_names().end(), task) - task_names().begin());
  options.format.format =
      only_csv ? "csv"
               : section.get<std::string>("format", "auto", one_of({"auto", "csv", "parquet", "arrow", "jsonl"}));
  options.format.header = section.get<std::string>("header", "auto", one_of({"auto", "true", "false"}));
  options.format.delimiter = section.get<std::string>("delimiter", ",", one_character)[0];
  options.normalize = section.get<bool>("normalize", false);
  options.columns = names_in(section, "columns");
  options.ignore = names_in(section, "ignore");
  options.categories = names_in(section, "categories");
  options.dates = names_in(section, "dates");
  options.unknown_is_zeros = section.get<std::string>("unknown", "refuse", one_of({"refuse", "zeros"})) == "zeros";
  options.sample_weights = section.get<std::string>("sample_weights", "");
  read_missing(section, options);
  read_sequence(section, context, options);
  if (section.has("window")) options.window = read_window(section.required_section("window"));
  check_task(section, options);
  section.finish();
  return options;
}

namespace {

/// Finds the columns of one table.
class Finder {
 public:
  /// `most`: of the columns; 0: all.
  Finder(const TableSplit& split, int most) : columns_(split.columns()), path_(split.first_path()) {
    if (most == 0) return;
    columns_.count = most;
    columns_.names.resize(static_cast<std::size_t>(most));
  }
  int count() const { return columns_.count; }

  /// The column that `text`, the value of `key`, names or numbers.
  int one(const Section& section, const std::string& key, const std::string& text) const {
    const std::vector<std::string>& names = columns_.names;
    const auto named = std::count(names.begin(), names.end(), text);
    if (named > 1)
      throw section.error(key, concat("got '", text, "', the name of ", named, " columns of ", path_,
                                      ", expected one column; write its 0-based number"));
    if (named == 1) return static_cast<int>(std::find(names.begin(), names.end(), text) - names.begin());
    if (const int number = number_of(text); number >= 0) return number;
    const std::string numbers = concat("a number from 0 to ", columns_.count - 1);
    throw section.error(key, concat("got '", text, "', which is no column of ", path_, ", expected ",
                                    names.empty() ? concat(numbers, " (the file has no header)")
                                                  : concat("one of ", join(names), ", or ", numbers),
                                    did_you_mean(text, names)));
  }

  bool has(const std::string& text) const {
    return std::count(columns_.names.begin(), columns_.names.end(), text) == 1 || number_of(text) >= 0;
  }

  /// The same for a list of names, numbers and patterns; in its order, of a pattern in that of the file.
  std::vector<int> all(const Section& section, const std::string& key, const std::vector<std::string>& texts) const {
    std::vector<int> found;
    const auto add = [&](int column) {
      if (std::find(found.begin(), found.end(), column) == found.end()) found.push_back(column);
    };
    for (const std::string& text : texts) {
      const std::vector<std::string>& names = columns_.names;
      const bool exact = std::find(names.begin(), names.end(), text) != names.end() || number_of(text) >= 0;
      std::vector<int> matching;
      for (std::size_t i = 0; i < names.size() && !exact; ++i)
        if (matches(text, names[i])) matching.push_back(static_cast<int>(i));
      if (matching.empty()) matching = {one(section, key, text)};
      std::for_each(matching.begin(), matching.end(), add);
    }
    return found;
  }

 private:
  int number_of(const std::string& text) const {
    int number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool numeric = result.ec == std::errc() && result.ptr == text.data() + text.size();
    return numeric && number >= 0 && number < columns_.count ? number : -1;
  }

  KnownColumns columns_;
  std::string path_;
};

bool has(const std::vector<int>& columns, int column) {
  return std::find(columns.begin(), columns.end(), column) != columns.end();
}

void plan_features(const Section& section, const TableOptions& options, const Finder& find, int count,
                   const std::string& path, TablePlan& plan) {
  const std::vector<int> ignored = find.all(section, "ignore", options.ignore);
  // What came before is known when what comes next is foretold: its past is a feature.
  const bool with_targets = options.task == TableTask::forecast;
  std::vector<int> candidates = find.all(section, "columns", options.columns);
  if (options.columns.empty())
    for (int column = 0; column < count; ++column)
      if ((with_targets || !has(plan.targets, column)) && column != plan.group && column != plan.order &&
          column != plan.sample_weights)
        candidates.push_back(column);
  for (const int column : candidates) {
    if (has(ignored, column)) continue;
    if (has(plan.targets, column) && !with_targets)
      throw section.error("columns", concat("got a target, column ", column, " of ", path, ", expected features"));
    plan.features.push_back(column);
  }
  for (const int column : plan.targets)
    if (has(ignored, column) && !with_targets)
      throw section.error("ignore", concat("got a target, column ", column, " of ", path, ", expected other columns"));
  if (plan.features.empty())
    throw section.error(
        "targets", concat("got all ", count, " columns of ", path, ", expected at least one to be left as a feature"));
}

void plan_kinds(const Section& section, const TableOptions& options, const Finder& find, TablePlan& plan) {
  for (const int column : find.all(section, "categories", options.categories))
    plan.kinds[column] = ColumnKind::category;
  for (const int column : find.all(section, "dates", options.dates))
    if (!plan.kinds.try_emplace(column, ColumnKind::date).second)
      throw section.error("dates", concat("got column ", column, ", which categories names too, expected one of both"));
}

void plan_missing(const Section& section, const TableOptions& options, const Finder& find, TablePlan& plan) {
  using Kind = MissingRule::Kind;
  plan.missing = options.missing;
  // What is no feature alone is not filled.
  std::vector<int> others = plan.sequence;
  others.insert(others.end(), plan.targets.begin(), plan.targets.end());
  if (plan.sample_weights >= 0) others.push_back(plan.sample_weights);
  const auto only_dropped = [&](int column) { return has(others, column); };
  for (const int column : others)
    if (plan.missing.kind != Kind::drop) plan.rules[column] = {};
  for (const auto& [name, rule] : options.missing_of) {
    const Section rules = section.section("missing");
    const int column = find.one(rules, name, name);
    if (only_dropped(column) && rule.kind != Kind::drop && rule.kind != Kind::refuse)
      throw rules.unexpected(name, "drop or refuse", ": the column is no feature alone");
    plan.rules[column] = rule;
  }
}

}  // namespace

std::vector<int> TablePlan::columns() const {
  std::vector<int> all = features;
  for (const std::vector<int>* more : {&targets, &sequence}) all.insert(all.end(), more->begin(), more->end());
  for (const int column : {group, order, sample_weights})
    if (column >= 0) all.push_back(column);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<WantedColumn> TablePlan::wanted(const std::vector<int>& kept) const {
  std::vector<WantedColumn> wanted;
  std::vector<int> all = columns();
  for (const int column : kept)
    if (!has(all, column)) all.push_back(column);
  for (const int column : all) {
    const auto kind = kinds.find(column);
    wanted.push_back({column, has(kept, column) || (kind != kinds.end() && kind->second == ColumnKind::category) ||
                                  has(sequence, column) || column == group || (has_classes && has(targets, column))});
  }
  return wanted;
}

TablePlan plan_table(const Section& section, const TableOptions& options, const TableSplit& split) {
  const Finder find(split, options.trained_columns);
  TablePlan plan;
  plan.has_classes = options.task == TableTask::classification;
  for (const std::string& target : options.targets) {
    if (options.is_answered && !find.has(target)) continue;
    const int column = find.one(section, "targets", target);
    if (has(plan.targets, column))
      throw section.error("targets", concat("got column '", target, "' twice, expected it once"));
    plan.targets.push_back(column);
  }
  if (options.window) {
    const Section window = section.section("window");
    if (!options.window->group.empty()) plan.group = find.one(window, "group", options.window->group);
    if (!options.window->order.empty()) plan.order = find.one(window, "order", options.window->order);
  }
  if (!options.sample_weights.empty() && (!options.is_answered || find.has(options.sample_weights)))
    plan.sample_weights = find.one(section, "sample_weights", options.sample_weights);
  for (const auto& [key, name] : {std::pair("text", options.text), std::pair("tokens", options.tokens),
                                  std::pair("prompt", options.prompt), std::pair("answer", options.answer)})
    if (!name.empty() && !(options.is_answered && name == options.answer))
      plan.sequence.push_back(find.one(section, key, name));
  if (plan.sequence.empty()) plan_features(section, options, find, find.count(), split.first_path(), plan);
  plan_kinds(section, options, find, plan);
  plan_missing(section, options, find, plan);
  if (options.is_answered && !options.window) {
    plan.targets.clear();
    plan.has_classes = false;
    plan.sample_weights = -1;
  }
  return plan;
}

}  // namespace lockstep
