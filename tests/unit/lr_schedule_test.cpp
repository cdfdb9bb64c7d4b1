// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/lr_schedule.hpp"

#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("every learning-rate schedule warms up linearly and ends where it says", "[unit]") {
  LrScheduleConfig schedule;
  schedule.warmup_steps = 4;
  schedule.min_lr = 0.1;
  schedule.step_every = 10;
  schedule.step_factor = 0.5;
  for (const char* type : {"constant", "linear", "cosine", "step"}) {
    schedule.type = type;
    INFO(type);
    CHECK(learning_rate(schedule, 1.0, 1, 20) == 0.25);
    CHECK(learning_rate(schedule, 1.0, 4, 20) == 1.0);
  }
  schedule.type = "constant";
  CHECK(learning_rate(schedule, 1.0, 20, 20) == 1.0);
  schedule.type = "linear";
  CHECK(learning_rate(schedule, 1.0, 12, 20) == Approx(0.55));
  CHECK(learning_rate(schedule, 1.0, 20, 20) == Approx(0.1));
  CHECK(learning_rate(schedule, 1.0, 99, 20) == Approx(0.1));
  schedule.type = "cosine";
  CHECK(learning_rate(schedule, 1.0, 12, 20) == Approx(0.55));
  CHECK(learning_rate(schedule, 1.0, 20, 20) == Approx(0.1));
  schedule.decay_steps = 8;
  CHECK(learning_rate(schedule, 1.0, 8, 20) == Approx(0.1));
  schedule.type = "step";
  CHECK(learning_rate(schedule, 1.0, 10, 20) == 1.0);
  CHECK(learning_rate(schedule, 1.0, 11, 20) == 0.5);
  CHECK(learning_rate(schedule, 1.0, 21, 40) == 0.25);
}
