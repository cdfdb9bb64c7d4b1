// SPDX-License-Identifier: Apache-2.0
//
// What a training set taught the reader of tables, as JSON that a checkpoint holds (DataRecord::learnt). Private to
// this folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lockstep {

/// What `normalize` does to a feature: (x - mean) / deviation, or 0 where the deviation is.
struct ColumnScaling {
  std::string column;
  double mean = 0, deviation = 0;
};

/// Columns go by their names, by 0-based numbers where they have none of their own. What is empty was not taught.
struct TableLearnt {
  std::vector<std::string> columns;                            ///< of the file, when it has names
  std::vector<ColumnScaling> scaling;                          ///< of the features that are scaled, in their order
  std::map<std::string, std::string> kinds;                    ///< of features that are no plain numbers
  std::map<std::string, std::vector<std::string>> categories;  ///< one feature each, in this order
  std::map<std::string, double> missing;                       ///< what takes the place of a missing cell
  std::vector<std::string> indicators;                         ///< columns followed by one that says what was missing
  std::map<std::string, std::vector<std::string>> labels;      ///< of a target, by class
};

/// One JSON object, on one line; numbers read back bit for bit. Keys that would be empty are not there.
std::string to_json(const TableLearnt& learnt);
/// Empty text: nothing. Throws DataError when it is not what to_json() writes.
TableLearnt table_learnt(const std::string& json);

/// Mean and standard deviation of the values, in double and two passes: the first cancels nothing in the second. The
/// mean is summed from the first value (`from_first`; not so in what was written before): the sum of 1000 times 14.62
/// divided by 1000 is not 14.62, and a constant feature would have a deviation.
ColumnScaling scaling_of(const std::string& column, const std::vector<double>& values, bool from_first);

}  // namespace lockstep
