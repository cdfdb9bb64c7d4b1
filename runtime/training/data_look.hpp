// SPDX-License-Identifier: Apache-2.0
//
// The data of a config, for people: `lockstep data`.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

struct DataLook {
  std::int64_t samples = 3;     ///< shown of the training set
  std::int64_t scan = 100'000;  ///< looked at, of each set, for ranges, classes and duplicates
  std::int64_t step = 0;        ///< > 0: the samples of this step instead
  int columns = 100;
};

/// Sets, entries with their ranges, classes, samples that are in the training set and in an evaluation set too, and a
/// few samples as text; or of one step which samples each micro-batch has. Throws what reading throws.
std::string look_at_data(const Config& config, const DataSplits& data, const DataLook& look);

}  // namespace lockstep
