// SPDX-License-Identifier: Apache-2.0
//
// Stands in for a training set that is not opened, where only the evaluation set is wanted. Private to this folder.
#pragma once

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// `size` samples of the form of another set's. Reading one throws.
class AbsentDataset : public Dataset {
 public:
  AbsentDataset(std::shared_ptr<const Dataset> like, std::int64_t size) : like_(std::move(like)), size_(size) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override { return like_->entries(rows); }
  std::int64_t size() const override { return size_; }
  Tensors read(const std::vector<std::int64_t>& /*samples*/) const override {
    throw DataError("the training data was not opened, for only the evaluation set was asked for");
  }

 private:
  std::shared_ptr<const Dataset> like_;
  std::int64_t size_;
};

}  // namespace lockstep
