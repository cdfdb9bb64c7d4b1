// SPDX-License-Identifier: Apache-2.0
//
// Every family on devices: the same bits for every cut, nothing in the wrong order, and nobody waits.
#include "tests/accelerator/fixture.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Config config_of(int micro_batches) {
  Config config = small_config("sparse_categorical_cross_entropy", 8, micro_batches);
  config.train.eval_every = 0;
  config.train.steps = 3;
  return config;
}

}  // namespace

TEST_CASE("every family trains on devices to the bits of one worker there", "[parity]") {
  const Simulated simulated;
  for (const FamilyCase& the : family_cases()) {
    CAPTURE(the.keys);
    Accelerator::set_lag(3);
    const Model model = model_of(the.keys);
    const RunRecord reference = run_on({sim()}, model, the.data, one_worker(config_of(3)));
    Config tested = with_pipeline(config_of(3), 3, "zb_h1");
    tested.pipeline.recompute_attention = true;
    CHECK(difference_on({sim(0), sim(1)}, reference, model, the.data, tested) == "");
  }
}

TEST_CASE("no family waits for a device, however many the micro-batches and steps", "[parity]") {
  const Simulated simulated;
  for (const FamilyCase& the : family_cases()) {
    CAPTURE(the.keys);
    const auto waits = [&](int micro_batches, int steps) {
      Accelerator::reset();
      Config config = with_pipeline(config_of(micro_batches), 2, "1f1b");
      config.train.steps = steps;
      trainer_on({sim(0), sim(1)}, model_of(the.keys), the.data, config).fit();
      return Accelerator::counts().waits;
    };
    const auto few = waits(2, 2);
    CHECK(waits(4, 2) == few);
    CHECK(waits(2, 4) == few);
  }
}
