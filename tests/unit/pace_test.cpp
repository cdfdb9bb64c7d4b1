// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/pace.hpp"

#include "runtime/observe/reporter.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

StepResult step(double operations, std::vector<double> product_rates) {
  StepResult result;
  result.step = 120;
  result.heads = {{2.34567, 1, 1}};
  result.gradient_norm = 1.23456;
  result.samples = 32;
  result.elapsed_us = 35'100;
  for (const double rate : product_rates) {
    WorkerReport worker{.row = static_cast<int>(result.workers.size()), .compute_us = 28'080, .product_rate = rate};
    worker.stages = {{.stage = worker.row, .operations = operations / static_cast<double>(product_rates.size())}};
    result.workers.push_back(std::move(worker));
  }
  return result;
}

Pace pace_of(const StepResult& result, std::int64_t tokens_per_sample = 0) {
  Pace pace{.tokens_per_sample = tokens_per_sample};
  pace.add(result);
  return pace;
}

std::string line_of(const StepResult& result, std::int64_t tokens_per_sample = 0) {
  return step_line(result, pace_of(result, tokens_per_sample), 200);
}

}  // namespace

TEST_CASE("a step's line has its pace, and of operations what is known", "[unit]") {
  const std::string before = "step 120/200  loss 2.3457  grad 1.235  35.1 ms  ", after = "  bubble 20 %";
  CHECK(line_of(step(0, {1e12, 1e12})) == before + "912 samples/s" + after);
  CHECK(line_of(step(0, {1e12, 1e12}), 64) == before + "58.3k tokens/s" + after);
  CHECK(line_of(step(35.1e9, {0, 0})) == before + "912 samples/s  1.00 TFLOP/s" + after);
  CHECK(line_of(step(35.1e9, {1e12, 0})) == before + "912 samples/s  1.00 TFLOP/s" + after);  // not of all workers
  CHECK(line_of(step(35.1e9, {1e12, 3e12})) == before + "912 samples/s  1.00 TFLOP/s (25 %)" + after);
}

TEST_CASE("a step's line of a long run has 100 columns", "[unit]") {
  StepResult result = step(2.34567e12 * 12.34, {30e12, 31e12});
  result.step = 12'345;
  result.gradient_norm = 12.3456;
  result.elapsed_us = 2'345'670;
  CHECK(step_line(result, pace_of(result, 2048), 99'999) ==
        "step 12345/99999  loss 2.3457  grad 12.35  2346 ms  27.9k tokens/s  12.3 TFLOP/s (20 %)  bubble 99 %");
  CHECK(step_line(result, pace_of(result, 2048), 99'999).size() == 100);
}

TEST_CASE("rates have three digits and a prefix", "[unit]") {
  const auto text = [](double rate) { return rate_text({.samples = 1, .us = 1e6 / rate}); };
  CHECK(text(0.0123456) == "0.0123 samples/s");
  CHECK(text(1.23456) == "1.23 samples/s");
  CHECK(text(99.4) == "99.4 samples/s");
  CHECK(text(999.4) == "999 samples/s");
  CHECK(text(999.6) == "1.00k samples/s");
  CHECK(text(12'345'678) == "12.3M samples/s");
  CHECK(work_text({.operations = 512, .us = 1e6}) == "512 FLOP/s");
  CHECK(work_text({.operations = 1.5e9, .us = 1e6}) == "1.50 GFLOP/s");
  CHECK(work_text({.operations = 2e15, .product_rate = 4e15, .us = 1e6}) == "2.00 PFLOP/s (50 %)");
  CHECK(work_text({}).empty());
}

TEST_CASE("the pace of several steps is that of their sums", "[unit]") {
  StepResult slow = step(3e9, {1e12});
  slow.elapsed_us = 3000;
  StepResult fast = step(3e9, {1e12});
  fast.elapsed_us = 1000;
  Pace pace{.tokens_per_sample = 10};
  pace.add(slow);
  pace.add(fast);
  CHECK(pace.samples_per_s() == Approx(64 / 4e-3));
  CHECK(*pace.tokens_per_s() == Approx(640 / 4e-3));
  CHECK(*pace.operations_per_s() == Approx(1.5e12));
  CHECK(*pace.product_share() == Approx(1.5));
}
