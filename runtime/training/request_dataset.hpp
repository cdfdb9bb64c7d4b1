// SPDX-License-Identifier: Apache-2.0
//
// Inputs that come in calls, as a set of samples that grows.
#pragma once

#include <mutex>
#include <vector>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

/// How many rows they have. Throws UserError when these are no inputs: none, not of the host, of several numbers of
/// rows.
std::int64_t rows_of(const std::vector<NamedTensor>& inputs);

/// The rows of all calls, one behind the other; those of the last one are there. Targets are zeros. Thread: any.
class RequestDataset : public Dataset {
 public:
  /// Of this form.
  explicit RequestDataset(const std::vector<NamedTensor>& like);
  /// Throws UserError when they are of another form.
  void add(const std::vector<NamedTensor>& rows);
  std::vector<EntrySpec> entries(std::int64_t rows) const override;
  std::int64_t size() const override;
  bool is_in_memory() const override { return true; }
  Tensors read(const std::vector<std::int64_t>& samples) const override;

 private:
  std::vector<EntrySpec> forms_;
  mutable std::mutex mutex_;
  Tensors rows_;
  std::int64_t first_ = 0, size_ = 0;
};

}  // namespace lockstep
