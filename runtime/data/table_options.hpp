// SPDX-License-Identifier: Apache-2.0
//
// The keys of {type: table}, and which columns of a file they mean. Private to this folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/table_cells.hpp"
#include "runtime/data/table_split.hpp"

namespace lockstep {

enum class TableTask { regression, classification, next_token, forecast };

struct MissingRule {
  enum class Kind { refuse, drop, mean, indicator, value } kind = Kind::refuse;
  std::string value = {};  ///< of Kind::value
  bool named = false;      ///< for this column, not for all
};

struct WindowOptions {
  std::int64_t length = 0, horizon = 1, stride = 1;
  std::string group, order;  ///< columns; may be empty
  bool flat = false;
};

struct TableOptions {
  TableFormat format;
  std::vector<std::string> train, eval;  ///< patterns; eval may be empty
  std::vector<std::string> columns, ignore, targets, categories, dates;
  TableTask task = TableTask::regression;
  bool normalize = false;
  /// With normalize: as it was before checkpoints recorded the arithmetic (DataSplits::unrecorded), which rounded to
  /// float32 first.
  bool unrecorded = false;
  bool unknown_is_zeros = false;
  MissingRule missing;
  std::vector<std::pair<std::string, MissingRule>> missing_of;  ///< by name of a column
  std::optional<WindowOptions> window;
  std::string sample_weights;                ///< a column; empty: every sample counts the same
  std::string text, tokens, prompt, answer;  ///< columns; a role that is not there is empty
  std::int64_t context = 0, pad = 0;
  bool truncate = false;
  bool is_answered = false;  ///< the file has inputs alone (TrainedOn::inputs)
  int trained_columns = 0;   ///< with is_answered: what comes behind so many columns is nobody's; 0: not known

  bool reads_tokens() const { return !text.empty() || !tokens.empty() || !prompt.empty(); }
};

/// Reads every key and calls finish(). `only_csv`: of {type: csv}.
TableOptions table_options(const Section& section, const DataContext& context, bool only_csv);

/// What stands where.
struct TablePlan {
  std::vector<int> features, targets;
  bool has_classes = false;   ///< the target is a class
  std::vector<int> sequence;  ///< columns of tokens or text, joined in this order; of two the first is the prompt
  int group = -1, order = -1, sample_weights = -1;
  std::map<int, ColumnKind> kinds;   ///< that were said
  MissingRule missing;               ///< of features
  std::map<int, MissingRule> rules;  ///< of columns that have their own

  std::vector<int> columns() const;  ///< all that have to be read, each once
  /// The same and `kept`, each once, and which of them are names rather than numbers.
  std::vector<WantedColumn> wanted(const std::vector<int>& kept = {}) const;
  MissingRule rule_of(int column) const {
    const auto found = rules.find(column);
    return found == rules.end() ? missing : found->second;
  }
};

/// Throws ConfigError for a name that is no column of `split`.
TablePlan plan_table(const Section& section, const TableOptions& options, const TableSplit& split);

}  // namespace lockstep
