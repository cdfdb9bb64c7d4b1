// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/speed_watch.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

/// A step in which each worker computed for so long.
StepResult step_of(std::int64_t step, const std::vector<double>& compute_us) {
  StepResult result;
  result.mode = Mode::train;
  result.step = step;
  result.micro_batches = 4;
  for (std::size_t row = 0; row < compute_us.size(); ++row) {
    WorkerReport worker;
    worker.row = static_cast<int>(row);
    StageReport stage;
    stage.forward_us = compute_us[row] / 3;
    stage.input_grad_us = compute_us[row] / 3;
    stage.weight_grad_us = compute_us[row] / 3;
    worker.stages = {stage};
    result.workers.push_back(worker);
  }
  return result;
}

/// Feeds steps until one is told of, or `last`; 0: none was.
std::int64_t told_after(SpeedWatch& watch, std::int64_t first, std::int64_t last, const std::vector<double>& compute_us,
                        SlowWorker* told = nullptr) {
  for (std::int64_t step = first; step <= last; ++step)
    if (const auto slow = watch.add(step_of(step, compute_us))) {
      if (told) *told = *slow;
      return step;
    }
  return 0;
}

}  // namespace

TEST_CASE("a worker that is slower than planned is told of after three windows, once", "[unit]") {
  SpeedWatch watch({100, 100, 100});
  SlowWorker slow;
  // Two warm steps, then three windows of ten.
  CHECK(told_after(watch, 1, 200, {110, 220, 110}, &slow) == 32);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(2));
  CHECK(slow.since_step == 3);
  CHECK(watch.suspects());
  CHECK(told_after(watch, 33, 300, {110, 220, 110}) == 0);
  CHECK(told_after(watch, 301, 312, {110, 110, 110}) == 0);
  CHECK_FALSE(watch.suspects());
}

TEST_CASE("what all workers are slower by is nobody's fault", "[unit]") {
  SpeedWatch watch({100, 50});
  CHECK(told_after(watch, 1, 200, {300, 150}) == 0);
}

TEST_CASE("of two workers the faster one is the measure", "[unit]") {
  SpeedWatch watch({100, 100});
  SlowWorker slow;
  CHECK(told_after(watch, 1, 100, {100, 150}, &slow) == 32);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(1.5));
}

TEST_CASE("without a plan a worker is held against its own first steps", "[unit]") {
  SpeedWatch watch;
  CHECK(told_after(watch, 1, 60, {100, 300}) == 0);  // uneven from the start is no news
  SlowWorker slow;
  CHECK(told_after(watch, 61, 200, {100, 450}, &slow) > 61);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(1.5));
}

TEST_CASE("a slow spell that ends, and single slow steps, are not told", "[unit]") {
  SpeedWatch watch({100, 100});
  for (int round = 0; round < 5; ++round) {
    CHECK(told_after(watch, 1 + round * 40, 20 + round * 40, {100, 200}) == 0);
    CHECK(told_after(watch, 21 + round * 40, 40 + round * 40, {100, 100}) == 0);
  }
  SpeedWatch other({100, 100});
  for (std::int64_t step = 1; step <= 200; ++step)
    CHECK_FALSE(other.add(step_of(step, {100, step % 3 == 0 ? 900.0 : 100.0})));
}

TEST_CASE("a worker that recovered and slows down again is told of again, and so is one that becomes slower still",
          "[unit]") {
  SpeedWatch watch({100, 100});
  CHECK(told_after(watch, 1, 100, {100, 200}) == 32);
  CHECK(told_after(watch, 33, 52, {100, 100}) == 0);
  CHECK(told_after(watch, 53, 152, {100, 200}) != 0);
  CHECK(told_after(watch, 153, 252, {100, 300}) != 0);
}

TEST_CASE("evaluations and short batches are passed over", "[unit]") {
  SpeedWatch watch({100, 100});
  for (std::int64_t step = 1; step <= 100; ++step) {
    CHECK_FALSE(watch.add(step_of(step, {100, 100})));
    StepResult evaluation = step_of(step, {100, 900});
    evaluation.mode = Mode::evaluate;
    CHECK_FALSE(watch.add(evaluation));
    StepResult rest = step_of(step, {100, 900});
    rest.micro_batches = 1;
    CHECK_FALSE(watch.add(rest));
  }
}

}  // namespace lockstep
