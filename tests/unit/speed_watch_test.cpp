// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/speed_watch.hpp"

#include <algorithm>
#include <random>

#include "tests/test.hpp"

namespace lockstep {
namespace {

/// A step in which each worker computed for so many milliseconds; it took 200, so that ten are a window.
StepResult step_of(std::int64_t step, const std::vector<double>& compute_ms, double elapsed_ms = 200) {
  StepResult result;
  result.mode = Mode::train;
  result.step = step;
  result.micro_batches = 4;
  result.elapsed_us = elapsed_ms * 1e3;
  for (std::size_t row = 0; row < compute_ms.size(); ++row) {
    WorkerReport worker;
    worker.row = static_cast<int>(row);
    StageReport stage;
    stage.forward_us = compute_ms[row] * 1e3 / 3;
    stage.input_grad_us = compute_ms[row] * 1e3 / 3;
    stage.weight_grad_us = compute_ms[row] * 1e3 / 3;
    worker.stages = {stage};
    result.workers.push_back(worker);
  }
  return result;
}

/// Feeds steps until one is told of, or `last`; 0: none was.
std::int64_t told_after(SpeedWatch& watch, std::int64_t first, std::int64_t last, const std::vector<double>& compute_ms,
                        SlowWorker* told = nullptr) {
  for (std::int64_t step = first; step <= last; ++step)
    if (const auto slow = watch.add(step_of(step, compute_ms))) {
      if (told) *told = *slow;
      return step;
    }
  return 0;
}

}  // namespace

TEST_CASE("a worker that is slower than planned is told of after three windows, once", "[unit]") {
  SpeedWatch watch({100000, 100000, 100000});
  SlowWorker slow;
  // Two warm steps, then three windows of ten.
  CHECK(told_after(watch, 1, 200, {110, 220, 110}, &slow) == 52);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(2));
  CHECK(slow.since_step == 3);
  CHECK(watch.suspects());
  CHECK(told_after(watch, 53, 300, {110, 220, 110}) == 0);
  CHECK(told_after(watch, 301, 312, {110, 110, 110}) == 0);
  CHECK_FALSE(watch.suspects());
}

TEST_CASE("what all workers are slower by is nobody's fault", "[unit]") {
  SpeedWatch watch({100000, 50000});
  CHECK(told_after(watch, 1, 200, {300, 150}) == 0);
}

TEST_CASE("of two workers the faster one is the measure", "[unit]") {
  SpeedWatch watch({100000, 100000});
  SlowWorker slow;
  CHECK(told_after(watch, 1, 100, {100, 150}, &slow) == 52);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(1.5));
}

TEST_CASE("without a plan a worker is held against the fastest that it has been", "[unit]") {
  SpeedWatch watch;
  CHECK(told_after(watch, 1, 60, {100, 300}) == 0);  // uneven from the start is no news
  SlowWorker slow;
  CHECK(told_after(watch, 61, 200, {100, 450}, &slow) > 61);
  CHECK(slow.row == 1);
  CHECK(slow.factor == Approx(1.5));
}

TEST_CASE("a worker whose first steps were disturbed makes no other one slow", "[unit]") {
  SpeedWatch watch;
  CHECK(told_after(watch, 1, 15, {100, 300}) == 0);
  CHECK(told_after(watch, 16, 400, {100, 100}) == 0);
}

TEST_CASE("a slow spell that ends, and single slow steps, are not told", "[unit]") {
  SpeedWatch watch({100000, 100000});
  for (int round = 0; round < 5; ++round) {
    CHECK(told_after(watch, 1 + round * 40, 20 + round * 40, {100, 200}) == 0);
    CHECK(told_after(watch, 21 + round * 40, 40 + round * 40, {100, 100}) == 0);
  }
  SpeedWatch other({100000, 100000});
  for (std::int64_t step = 1; step <= 200; ++step)
    CHECK_FALSE(other.add(step_of(step, {100, step % 3 == 0 ? 900.0 : 100.0})));
}

TEST_CASE("a worker that recovered and slows down again is told of again, and so is one that becomes slower still",
          "[unit]") {
  SpeedWatch watch({100000, 100000});
  CHECK(told_after(watch, 1, 100, {100, 200}) == 52);
  CHECK(told_after(watch, 53, 72, {100, 100}) == 0);
  CHECK(told_after(watch, 73, 172, {100, 200}) != 0);
  CHECK(told_after(watch, 173, 272, {100, 300}) != 0);
}

TEST_CASE("evaluations and short batches are passed over", "[unit]") {
  SpeedWatch watch({100000, 100000});
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

namespace {

/// What a shared machine does to steps: each compute varies, now and then the system takes the core away, and there are
/// spells in which something else runs on a worker's core.
struct Machine {
  double step_ms, spread, taken_away, taken_ms, spells, spell_steps;
};

/// How often steps with that noise are taken for a slow worker. `factor`: by which worker 1 really is slow.
int alarms(const Machine& machine, std::size_t workers, std::int64_t steps, double factor = 1, int* wrong = nullptr,
           std::uint64_t seed = 7) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> varied(0, machine.spread);
  std::uniform_real_distribution<double> chance(0, 1);
  std::vector<bool> in_spell(workers, false);
  SpeedWatch watch;
  int told = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    std::vector<double> compute_ms;
    for (std::size_t worker = 0; worker < workers; ++worker) {
      in_spell[worker] = chance(random) < (in_spell[worker] ? 1 - 1 / machine.spell_steps : machine.spells);
      double ms = machine.step_ms * varied(random) * (in_spell[worker] ? 2 : 1);
      if (chance(random) < machine.taken_away) ms += machine.taken_ms;
      compute_ms.push_back(worker == 1 && step > steps / 3 ? ms * factor : ms);
    }
    if (const auto slow =
            watch.add(step_of(step, compute_ms, 1.5 * *std::max_element(compute_ms.begin(), compute_ms.end())))) {
      ++told;
      if (wrong && slow->row != 1) ++*wrong;
    }
  }
  return told;
}

constexpr Machine kMilliseconds{1, 0.4, 0.1, 4, 1.0 / 2000, 300};  // a spell: a second
constexpr Machine kSlowSteps{60, 0.15, 0.05, 10, 1.0 / 300, 6};    // the same

}  // namespace

TEST_CASE("noise of a shared machine is nobody's fault, for many thousand steps", "[unit]") {
  for (const std::size_t workers : {2, 3, 4, 8}) {
    INFO(workers << " workers");
    CHECK(alarms(kMilliseconds, workers, 100'000) == 0);
    for (const std::uint64_t seed : {2, 3, 5, 7, 11}) CHECK(alarms(kSlowSteps, workers, 10'000, 1, nullptr, seed) == 0);
  }
}

TEST_CASE("a worker that is really slow is named in the same noise, and no other", "[unit]") {
  for (const std::size_t workers : {2, 4, 8}) {
    INFO(workers << " workers");
    int wrong = 0;
    CHECK(alarms(kSlowSteps, workers, 3'000, 2, &wrong) >= 1);
    CHECK(alarms(kMilliseconds, workers, 60'000, 4, &wrong) >= 1);
    CHECK(wrong == 0);
  }
}

}  // namespace lockstep
