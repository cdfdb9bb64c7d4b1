// SPDX-License-Identifier: Apache-2.0
//
// The data of a config, for people: `lockstep data`.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

/// What a scan has seen of one entry.
struct DataRange {
  double least = INFINITY, most = -INFINITY, sum = 0;
  std::int64_t count = 0, not_finite = 0;
  void add(const at::Tensor& tensor);
};

/// The first samples of a set.
struct DataScan {
  std::int64_t samples = 0;
  std::vector<DataRange> ranges;                           ///< by entry
  std::map<std::int64_t, std::int64_t> classes;            ///< how many of each; of targets that are one class a sample
  std::unordered_map<std::uint64_t, std::int64_t> hashes;  ///< of x -> the first such sample
  std::vector<std::pair<std::int64_t, std::int64_t>> twins;  ///< later sample with the same x, first such sample
};
DataScan scan_data(const Dataset& set, std::int64_t most);

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
