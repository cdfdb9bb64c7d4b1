// SPDX-License-Identifier: Apache-2.0
//
// Which rows of a table are samples, and the classes of a target. Private to this folder.
#pragma once

#include "runtime/data/table_learnt.hpp"
#include "runtime/data/table_options.hpp"

namespace lockstep {

/// The rows of a split that are samples. Rows with a missing cell in a column of the rule `drop` are none.
class KeptRows {
 public:
  explicit KeptRows(std::int64_t rows) : kept_(static_cast<std::size_t>(rows), 1) {}
  void drop(std::int64_t row) { kept_[static_cast<std::size_t>(row)] = 0; }
  bool has(std::int64_t row) const { return kept_[static_cast<std::size_t>(row)] != 0; }
  std::vector<std::int64_t> rows() const;

 private:
  std::vector<char> kept_;
};

/// What the rule of `column` does to missing cells where it is to refuse or to drop them; `is_missing(row)` says which
/// they are.
void apply_missing(const TableSplit& split, MissingRule::Kind rule, int column, const char* expected,
                   const std::string& advice, const std::function<bool(std::int64_t)>& is_missing, KeptRows& kept);

/// In order: of numbers by value, else by bytes.
void sort_names(std::vector<std::string>& names);

/// The classes of the target column, all rows; missing ones are handled as the plan says. Labels are learnt.
std::vector<std::int64_t> classes_of(const TableSplit& split, const TablePlan& plan, bool teaches, TableLearnt& learnt,
                                     KeptRows& kept);

}  // namespace lockstep
