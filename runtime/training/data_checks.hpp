// SPDX-License-Identifier: Apache-2.0
//
// Data against the model's losses: what can be known before training, and what is looked at batch by batch where the
// data is read (row 0), in the pass that counts the denominators.
#pragma once

#include <vector>

#include "runtime/data/dataset.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {

/// Before anything is described: there is training data, both sets have samples, and entries() keep the form that the
/// engine relies on (at least two, each with the rows first). Throws DataError.
void check_datasets(const DataSplits& data);

/// Looks at targets. Throws DataError at the first value that its loss is not defined for, with the sample, where it
/// stands, the value and what to do.
class TargetChecks {
 public:
  /// References outlive it.
  TargetChecks(const ModelGraph& graph, const Losses& losses);
  /// All targets of a data set that lies in memory (Dataset::all), else nothing.
  void check_all(const Dataset& data) const;
  /// One batch: what was read of `samples`; nothing when check_all() has seen them.
  void check_batch(const Dataset& data, const std::vector<std::int64_t>& samples, const Tensors& batch) const;

 private:
  void check(const Dataset& data, const std::vector<std::int64_t>& samples, const Tensors& entries) const;
  void check_weights(const Dataset& data, const std::vector<std::int64_t>& samples, const Tensors& entries) const;

  const ModelGraph& graph_;
  const Losses& losses_;
  std::vector<TargetDomain> domains_;  // by head
};

}  // namespace lockstep
