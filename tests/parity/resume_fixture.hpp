// SPDX-License-Identifier: Apache-2.0
//
// What the tests of resuming share: a small run, and one that has left with a checkpoint.
#pragma once

#include <filesystem>

#include "runtime/checkpoint/store.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

struct Small {
  Model model = mlp_with_skip(0.25, true);
  DataSplits data = regression_data(21, 6, 3);
  Config config = small_config("mean_squared_error", 8, 3);
  Small() { config.checkpoint.every = "1"; }
};

/// One that has left after step 2, with a checkpoint.
struct Stopped : Small {
  TemporaryFolder folder;
  std::string checkpoint = checkpoint_path(folder.path(), 2);
  Stopped() {
    config.train.stop_after = 2;
    next_leg(model, data, config, folder.path());
  }
};

/// Data whose targets are one value.
class SameTargets : public Dataset {
 public:
  SameTargets(std::shared_ptr<const Dataset> data, double target) : data_(std::move(data)), target_(target) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override { return data_->entries(rows); }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors batch = data_->read(samples);
    batch.back().fill_(target_);
    return batch;
  }

 private:
  std::shared_ptr<const Dataset> data_;
  double target_;
};

/// Of the checkpoints there.
inline std::vector<std::int64_t> steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  for (const CheckpointPlace& place : list_checkpoints(folder)) steps.push_back(place.step);
  return steps;
}

/// One tensor file of a checkpoint whose name begins so.
inline std::filesystem::path shard_of(const std::string& checkpoint, const std::string& kind) {
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint))
    if (entry.path().filename().string().starts_with(kind) && entry.path().extension() == ".safetensors")
      return entry.path();
  FAIL("no " << kind << " in " << checkpoint);
  return {};
}

}  // namespace lockstep::test
