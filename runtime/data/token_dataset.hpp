// SPDX-License-Identifier: Apache-2.0
//
// Rows of a table as sequences of tokens: the bytes of a text, or lists of token ids. Private to this folder.
//
//   text or tokens    t0 t1 t2            context 5, pad 0, ignored target -100
//   next_token        x  t0 t1 t2 0 0     targets  t1 t2 -100 -100 -100
//   classification    x  t0 t1 t2 0 0     target   the class
//   prompt, answer    p0 p1 | a0 a1
//   next_token        x  p0 p1 a0 a1 0    targets  -100 a0 a1 -100 -100
//
// x int64 [rows, context]. The cells stay as Arrow has them, in the mapped file where it is an Arrow file, and are
// copied when a sample is read. A row of more tokens than context (next_token: context + 1) is an error, or is cut.
#pragma once

#include "runtime/data/dataset.hpp"
#include "runtime/data/table_labels.hpp"

namespace lockstep {

/// `split`: read. Adds notes about rows that were cut.
std::shared_ptr<const Dataset> token_dataset(std::shared_ptr<TableSplit> split, const TablePlan& plan,
                                             const TableOptions& options, bool teaches, TableLearnt& learnt,
                                             std::vector<std::string>& notes);

}  // namespace lockstep
