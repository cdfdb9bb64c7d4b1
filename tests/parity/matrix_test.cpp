// SPDX-License-Identifier: Apache-2.0
//
// The gate: whatever the cut, the schedule and the number of workers, training gives the same bits as one worker.
#include "runtime/schedule/generators.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

struct Case {
  std::string name;
  Model model;
  DataSplits data;
  std::string loss;
};

// 8 samples a batch do not divide by 5; 21 samples make the last batch of an epoch short.
constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kSamples = 21;

void expect_same_bits_everywhere(const Case& the) {
  for (const int micro_batches : {1, 2, 5, 8}) {
    const Config config = small_config(the.loss, kBatch, micro_batches);
    const RunRecord reference = reference_run(the.model, the.data, config);
    REQUIRE(reference.results.size() > 5);
    for (const ScheduleGenerator& schedule : schedule_generators()) {
      if (!schedule.virtual_stages.allows(1)) continue;
      for (int stages = 1; stages <= 4; ++stages) {
        INFO(the.name << ", " << schedule.name << ", " << stages << " stages, " << micro_batches << " micro-batches");
        CHECK(difference(reference, the.model, the.data, with_pipeline(config, stages, schedule.name)) == "");
      }
    }
  }
}

}  // namespace

TEST_CASE("an MLP trains to the same bits for every cut and schedule", "[parity]") {
  const DataSplits data = regression_data(kSamples, 6, 3);
  for (const bool skip : {false, true})
    for (const double dropout : {0.0, 0.25})
      expect_same_bits_everywhere(
          {concat("mlp skip=", skip, " dropout=", dropout), mlp_with_skip(dropout, skip), data, "mean_squared_error"});
}

TEST_CASE("a GPT trains to the same bits for every cut and schedule", "[parity]") {
  const DataSplits data = token_data(kSamples, 8, 11);
  for (const bool tied : {false, true})
    for (const double dropout : {0.0, 0.2})
      expect_same_bits_everywhere({concat("gpt tied=", tied, " dropout=", dropout), small_gpt(3, dropout, tied), data,
                                   "sparse_categorical_cross_entropy"});
}
