// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/plateau.hpp"

#include <cmath>

#include "tests/test.hpp"

using namespace lockstep;

namespace {

constexpr std::int64_t kEvery = 10;

LrScheduleConfig plateau() {
  LrScheduleConfig schedule;
  schedule.type = LrScheduleType::plateau;
  return schedule;
}

// The rate of the first step that knows each evaluation.
std::vector<double> rates(const LrScheduleConfig& schedule, const std::vector<double>& losses) {
  PlateauState state;
  std::vector<double> found;
  std::int64_t step = 0;
  for (const double loss : losses) {
    count_evaluation(schedule, state, step += kEvery, loss);
    found.push_back(reduced_rate(schedule, state, 0.3, step + kPlateauDelay));
  }
  return found;
}

const std::vector<double> kLosses = {1.0,  0.9,  0.95, 0.90001, 0.9, 0.7, 0.8,          0.8, 0.8, 0.69995, 0.71,
                                     0.72, 0.73, 0.5,  0.6,     0.6, 0.6, std::nan(""), 0.6, 0.6, 0.6,     0.6};

}  // namespace

// torch.optim.lr_scheduler.ReduceLROnPlateau of torch 2.13, with a rate of 0.3 and these losses.
TEST_CASE("plateau has the rates of torch.optim.lr_scheduler.ReduceLROnPlateau", "[unit]") {
  LrScheduleConfig schedule = plateau();
  CHECK(rates(schedule, kLosses) == std::vector<double>(kLosses.size(), 0.3));  // patience 10
  schedule.factor = 0.5;
  schedule.patience = 1;
  schedule.threshold = 1e-3;
  CHECK(rates(schedule, kLosses) ==
        std::vector<double>{0.3,      0.3,       0.3,       0.15,       0.15,       0.15,       0.15,    0.075,
                            0.075,    0.0375,    0.0375,    0.01875,    0.01875,    0.01875,    0.01875, 0.009375,
                            0.009375, 0.0046875, 0.0046875, 0.00234375, 0.00234375, 0.001171875});
  schedule = plateau();
  schedule.patience = 0;
  schedule.cooldown = 2;
  schedule.min_lr = 0.004;
  std::vector<double> expected(kLosses.size(), 0.004);
  expected[0] = expected[1] = 0.3;
  for (std::size_t i = 2; i < 6; ++i) expected[i] = 0.03;
  CHECK(rates(schedule, kLosses) == expected);
}

TEST_CASE("a reduction takes effect two steps after its evaluation, also where every step is evaluated", "[unit]") {
  LrScheduleConfig schedule = plateau();
  schedule.factor = 0.5;
  schedule.patience = 0;
  PlateauState state;
  for (std::int64_t step = 1; step <= 4; ++step) {
    count_evaluation(schedule, state, step, 1.0);  // the first one is the best
    const double known = std::pow(0.5, static_cast<double>(step - 1));
    CHECK(reduced_rate(schedule, state, 1.0, step + 1) == std::min(1.0, known * 2));
    CHECK(reduced_rate(schedule, state, 1.0, step + 2) == known);
  }
}

TEST_CASE("an evaluation that a resumed job makes once more does not count twice", "[unit]") {
  LrScheduleConfig schedule = plateau();
  schedule.patience = 1;
  PlateauState state;
  count_evaluation(schedule, state, 10, 1.0);
  count_evaluation(schedule, state, 20, 1.0);
  const PlateauState before = state;
  count_evaluation(schedule, state, 20, 1.0);
  CHECK(state == before);
  count_evaluation(schedule, state, 30, 1.0);
  CHECK(state.reductions == 1);
}
