// SPDX-License-Identifier: Apache-2.0
//
// The columns of a table as tensors. Private to this folder.
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/data/table_labels.hpp"

namespace lockstep {

struct DecodedTable {
  at::Tensor x;                       ///< float32 [samples, features]
  at::Tensor targets;                 ///< float32 [samples, target columns], or int64 [samples]: classes
  at::Tensor weights;                 ///< float32 [samples], or undefined
  std::vector<std::int64_t> rows;     ///< by sample
  std::vector<std::string> contents;  ///< DataSplits::contents
};

/// Reads the split's cells of features and targets, and takes them. `teaches`: it is the training set, and `learnt`
/// gets what the set teaches; else columns are read by what `learnt` has. Throws DataError naming place, column and
/// value.
DecodedTable decode_table(TableSplit& split, const TablePlan& plan, const TableOptions& options, bool teaches,
                          TableLearnt& learnt);

}  // namespace lockstep
