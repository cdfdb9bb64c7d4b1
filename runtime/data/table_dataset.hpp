// SPDX-License-Identifier: Apache-2.0
//
// A Dataset that lies in memory as two tensors, or three. Private to this folder.
#pragma once

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// Sample i is row i of `x` and of `targets`: contiguous, on the host, equally many.
class TableDataset : public Dataset {
 public:
  /// `place_of`: as Dataset::place_of; may be empty. `weights`: of samples (kSampleWeights), float32 [rows]; or
  /// undefined.
  TableDataset(at::Tensor x, at::Tensor targets, std::function<std::string(std::int64_t)> place_of = {},
               at::Tensor weights = {});
  std::vector<EntrySpec> entries(std::int64_t rows) const override;
  std::int64_t size() const override;
  Tensors read(const std::vector<std::int64_t>& samples) const override;
  bool reads_in_parallel() const override { return true; }
  Tensors all() const override;
  std::vector<std::int64_t> classes() const override;
  std::string place_of(std::int64_t sample) const override { return place_of_ ? place_of_(sample) : ""; }

 private:
  at::Tensor x_, targets_, weights_;
  std::int64_t x_below_, targets_below_;
  std::function<std::string(std::int64_t)> place_of_;
};

/// What every reader puts out: "x" and "targets", batched, not differentiable.
struct DataEntry {
  at::ScalarType dtype;
  std::vector<std::int64_t> sizes;  ///< without the rows
  std::int64_t below = 0;           ///< as EntrySpec::below
};
std::vector<EntrySpec> data_entries(std::int64_t rows, const DataEntry& x, const DataEntry& targets);

}  // namespace lockstep
