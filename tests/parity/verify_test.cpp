// SPDX-License-Identifier: Apache-2.0
//
// A check proves that it can fail: planted faults are found and named.
#include <ATen/ATen.h>

#include "runtime/schedule/generators.hpp"
#include "runtime/training/losses.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

const Model kModel = mlp_with_skip(0.25, true);
constexpr int kMicroBatches = 4;

Config config() {
  return with_pipeline(small_config("mean_squared_error", 8, kMicroBatches), 3, "gpipe");
}

// GPipe with the backward half from the last micro-batch to the first.
class ReversedBackward : public Programs {
 public:
  explicit ReversedBackward(const Topology& topology)
      : Programs(backwards(kMicroBatches), topology, {.clip = true}), topology_(topology) {}

 protected:
  Program make(Mode mode, int micro_batches) const override {
    return lower(backwards(std::max(micro_batches, 1)), topology_, {mode, true});  // not validated: it would be refused
  }

 private:
  static Schedule backwards(int micro_batches) {
    Schedule schedule = make_schedule("gpipe", {3, 1, micro_batches});
    for (auto& row : schedule.rows) std::reverse(row.begin() + micro_batches, row.end());
    return schedule;
  }
  Topology topology_;
};

// The value of the loss is right, its gradient is off by one part in a million.
class ScaledGradient : public Loss {
 public:
  std::string name() const override { return inner_->name(); }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { inner_->check(output, targets); }
  double denominator(const at::Tensor& targets) const override { return inner_->denominator(targets); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor sum = inner_->numerator(output, targets);
    return sum + 1e-6 * (sum - sum.detach());
  }

 private:
  std::unique_ptr<Loss> inner_ = loss_kinds().get("mean_squared_error").make({});
};

}  // namespace

TEST_CASE("verify names a wrong seed, a wrong order and a wrong scale", "[parity]") {
  const DataSplits data = regression_data(21, 6, 3);
  const RunRecord reference = reference_run(kModel, data, config());
  REQUIRE(difference(reference, kModel, data, config()) == "");

  SECTION("seed: other initial weights, so the first loss differs") {
    Config planted = config();
    planted.seed += 1;
    CHECK_THAT(difference(reference, kModel, data, planted), Catch::Contains("step 1 (train): loss"));
  }
  SECTION("order: the first gradient differs, the loss before it does not") {
    Assembly assembly = assemble(kModel, data, config());
    assembly.programs = std::make_shared<ReversedBackward>(assembly.partition.topology);
    Trainer trainer(std::move(assembly));
    const auto found = first_difference(reference, record_run(trainer), trainer.graph());
    REQUIRE(found);
    CHECK_THAT(*found, Catch::Contains("step 1 (train): gradient of "));
  }
  SECTION("scale: the first gradient differs") {
    Assembly assembly = assemble(kModel, data, config());
    assembly.losses.at(0) = std::make_shared<ScaledGradient>();
    Trainer trainer(std::move(assembly));
    const auto found = first_difference(reference, record_run(trainer), trainer.graph());
    REQUIRE(found);
    CHECK_THAT(*found, Catch::Contains("step 1 (train): gradient of fc.0.weight (layer fc.0)"));
  }
}

TEST_CASE("a schedule that accumulates in another order is refused before it runs", "[parity]") {
  const DataSplits data = regression_data(21, 6, 3);
  Trainer trainer(kModel, data, config());
  Programs programs(
      [] {
        Schedule schedule = make_schedule("gpipe", {3, 1, kMicroBatches});
        std::reverse(schedule.rows[1].begin() + kMicroBatches, schedule.rows[1].end());
        return schedule;
      }(),
      trainer.partition().topology, LowerOptions{.clip = true});
  CHECK_THROWS_AS(programs.get(Mode::train, kMicroBatches), UserError);
}
