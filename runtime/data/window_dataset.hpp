// SPDX-License-Identifier: Apache-2.0
//
// Windows over the rows of a table: {window: {length, horizon, stride, group, order, flat}}. Private to this folder.
//
//   rows of one group   0 1 2 3 4 5 6 7      length 3, horizon 2, stride 2
//   sample 0            x x x t t            x: the features of these rows, t: the targets of these
//   sample 1                x x x t t
//
// A group's rows are a series in the order of the file, wherever its rows stand; no window crosses groups, or a row
// that was dropped. x float32 [rows, length, features], or [rows, length * features] when flat; targets float32 [rows,
// horizon * target columns].
#pragma once

#include "runtime/data/table_features.hpp"
#include "runtime/data/table_options.hpp"

namespace lockstep {

/// Where the rows of a table belong. Empty: one group, no order.
struct SeriesOf {
  NamedCells group;
  std::vector<double> order;
};
/// Reads the columns of the plan; missing cells are refused.
SeriesOf series_of(TableSplit& split, const TablePlan& plan);

/// Throws DataError when the order does not ascend within a group, or no group is long enough for a window.
/// `last_rows`: by sample, the last row of its x.
std::shared_ptr<const Dataset> window_dataset(std::shared_ptr<const TableSplit> split, const TablePlan& plan,
                                              const WindowOptions& window, const SeriesOf& series, DecodedTable table,
                                              std::vector<std::int64_t>& last_rows);

}  // namespace lockstep
