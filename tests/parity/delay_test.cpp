// SPDX-License-Identifier: Apache-2.0
//
// Which message is ready first is chance; the bits are not.
#include "runtime/schedule/generators.hpp"
#include "tests/parity/delayed_channel.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

void expect_same_bits(const std::string& name, const Model& model, const DataSplits& data, const std::string& loss) {
  for (const int micro_batches : {2, 5}) {
    const Config config = small_config(loss, 8, micro_batches);
    const RunRecord reference = reference_run(model, data, config);
    for (const ScheduleGenerator& schedule : schedule_generators())
      for (const int stages : schedule.virtual_stages.allows(1) ? std::vector<int>{2, 4} : std::vector<int>{})
        for (const unsigned seed : {1U, 2U}) {
          INFO(name << ", " << schedule.name << ", " << stages << " stages, " << micro_batches
                    << " micro-batches, seed " << seed);
          Trainer trainer(model, data, with_pipeline(config, stages, schedule.name));
          std::atomic<long> delays{0};
          RunOptions options;
          options.wrap_channel = delayed(seed, delays);
          CHECK(first_difference(reference, record_run(trainer, options), trainer.graph()).value_or("") == "");
          CHECK(delays > 50);
        }
  }
}

}  // namespace

TEST_CASE("an MLP with a skip and dropout trains to the same bits under random delays", "[parity]") {
  expect_same_bits("mlp", mlp_with_skip(0.25, true), regression_data(21, 6, 3), "mean_squared_error");
}

TEST_CASE("a tied GPT with dropout trains to the same bits under random delays", "[parity]") {
  expect_same_bits("gpt", small_gpt(3, 0.2, true), token_data(21, 8, 11), "sparse_categorical_cross_entropy");
}
