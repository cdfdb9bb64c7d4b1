// SPDX-License-Identifier: Apache-2.0
//
// The scaling of features that `normalize` asks for. Private to this folder.
#pragma once

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// Mean and standard deviation of every feature of a training set, in double and two passes: the first cancels nothing
/// in the second. `x`: row after row; `columns`: the features' names. Means are summed from the first row
/// (`from_first`; not so in what was written before): the sum of 1000 times 14.62 divided by 1000 is not 14.62, and a
/// constant feature would have a deviation.
std::vector<ColumnScaling> scaling_of(const std::vector<double>& x, const std::vector<std::string>& columns,
                                      bool from_first);

/// Rounded to float32 when it is scaled.
std::vector<float> scaled(const std::vector<double>& x, const std::vector<ColumnScaling>& scaling);

/// Throws DataError when a checkpoint's scaling is of another number of features than the file at `path` has.
void check_scaling(const std::vector<ColumnScaling>& scaling, int features, const std::string& path);

}  // namespace lockstep
