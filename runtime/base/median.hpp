// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace lockstep {

/// The middle one, of an even number the mean of the two in the middle. What is not a number has no place in an order
/// and is left out; NaN when nothing is left.
double median(std::vector<double> values);

}  // namespace lockstep
