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
  schedule.stable_steps = 6;
  for (const std::string& type : names<LrScheduleType>()) {
    schedule.type = find_enum<LrScheduleType>(type).value();
    INFO(type);
    if (schedule.type == LrScheduleType::one_cycle) continue;  // its rise is its own
    CHECK(learning_rate(schedule, 1.0, 1, 20) == 0.25);
    CHECK(learning_rate(schedule, 1.0, 4, 20) == 1.0);
  }
  schedule.type = LrScheduleType::constant;
  CHECK(learning_rate(schedule, 1.0, 20, 20) == 1.0);
  schedule.type = LrScheduleType::linear;
  CHECK(learning_rate(schedule, 1.0, 12, 20) == Approx(0.55));
  CHECK(learning_rate(schedule, 1.0, 20, 20) == Approx(0.1));
  CHECK(learning_rate(schedule, 1.0, 99, 20) == Approx(0.1));
  schedule.type = LrScheduleType::cosine;
  CHECK(learning_rate(schedule, 1.0, 12, 20) == Approx(0.55));
  CHECK(learning_rate(schedule, 1.0, 20, 20) == Approx(0.1));
  schedule.decay_steps = 8;
  CHECK(learning_rate(schedule, 1.0, 8, 20) == Approx(0.1));
  schedule.type = LrScheduleType::step;
  CHECK(learning_rate(schedule, 1.0, 10, 20) == 1.0);
  CHECK(learning_rate(schedule, 1.0, 11, 20) == 0.5);
  CHECK(learning_rate(schedule, 1.0, 21, 40) == 0.25);
}

TEST_CASE("warm-up, stable, decay: the base rate until the decay begins, then a straight line", "[unit]") {
  LrScheduleConfig schedule;
  schedule.type = LrScheduleType::wsd;
  schedule.warmup_steps = 4;
  schedule.stable_steps = 6;
  schedule.min_lr = 0.1;
  CHECK(learning_rate(schedule, 1.0, 2, 20) == 0.5);
  CHECK(learning_rate(schedule, 1.0, 10, 20) == 1.0);
  CHECK(learning_rate(schedule, 1.0, 11, 20) == Approx(0.91));
  CHECK(learning_rate(schedule, 1.0, 15, 20) == Approx(0.55));
  CHECK(learning_rate(schedule, 1.0, 20, 20) == Approx(0.1));
  CHECK(learning_rate(schedule, 1.0, 50, 20) == Approx(0.1));
  schedule.decay_steps = 12;
  CHECK(learning_rate(schedule, 1.0, 11, 20) == Approx(0.55));
}

// OneCycleLR(optimizer, max_lr=1.0, total_steps=20) of torch 2.11, rounded to eight places.
TEST_CASE("one cycle is that of torch.optim.lr_scheduler.OneCycleLR", "[unit]") {
  const double expected[] = {0.04,       0.13167184, 0.37167184, 0.66832816, 0.90832816, 1.0,      0.98746401,
                             0.95048463, 0.89091618, 0.81174565, 0.716943,   0.61126202, 0.500002, 0.38874198,
                             0.283061,   0.18825835, 0.10908782, 0.04951937, 0.01253999, 0.000004};
  LrScheduleConfig schedule;
  schedule.type = LrScheduleType::one_cycle;
  for (int step = 1; step <= 20; ++step)
    CHECK(learning_rate(schedule, 1.0, step, 20) == Approx(expected[step - 1]).margin(6e-9));
  CHECK(learning_rate(schedule, 1.0, 25, 20) == Approx(0.000004));
}
