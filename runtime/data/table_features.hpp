// SPDX-License-Identifier: Apache-2.0
//
// The columns of a table as tensors. Private to this folder.
#pragma once

#include <ATen/core/Tensor.h>

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

/// What is done to missing cells of `column` where that is to refuse or to drop them; `is_missing(row)` says which they
/// are.
void apply_missing(const TableSplit& split, const TablePlan& plan, int column, const char* expected,
                   const std::string& advice, const std::function<bool(std::int64_t)>& is_missing, KeptRows& kept);

struct DecodedTable {
  at::Tensor x;                    ///< float32 [samples, features]
  at::Tensor targets;              ///< float32 [samples, target columns], or int64 [samples]: classes
  std::vector<std::int64_t> rows;  ///< by sample
};

/// Reads the split's cells of features and targets, and takes them. `teaches`: it is the training set, and `learnt`
/// gets what the set teaches; else columns are read by what `learnt` has. Throws DataError naming place, column and
/// value.
DecodedTable decode_table(TableSplit& split, const TablePlan& plan, const TableOptions& options, bool teaches,
                          TableLearnt& learnt);

/// The classes of the target column, all rows; missing ones are handled as the plan says. Labels are learnt.
std::vector<std::int64_t> classes_of(const TableSplit& split, const TablePlan& plan, bool teaches, TableLearnt& learnt,
                                     KeptRows& kept);

}  // namespace lockstep
