// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/measured.hpp"

#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

// Stage s took 10 (s + 1) per micro-batch in F, twice that in I, half of it in W.
StepResult step_of(int stages, int micro_batches, double scale) {
  StepResult result;
  result.micro_batches = micro_batches;
  for (int s = 0; s < stages; ++s) {
    StageReport stage;
    stage.stage = s;
    stage.forward_us = scale * 10 * (s + 1) * micro_batches;
    stage.input_grad_us = 2 * stage.forward_us;
    stage.weight_grad_us = stage.forward_us / 2;
    stage.recomputed = 2;
    stage.recompute_us = scale * 2 * 7;
    stage.activation_bytes = 100 + s;
    stage.layer_us = {scale * 5, scale * (7 + s)};
    WorkerReport worker;
    worker.row = s;
    worker.update_us = scale * 3;
    worker.in_flight_bytes = static_cast<std::int64_t>(scale * 1000) + s;
    worker.stages = {stage};
    result.workers.push_back(worker);
  }
  return result;
}

}  // namespace

TEST_CASE("measured costs are averages over micro-batches and steps", "[unit]") {
  const Program program = lowered("1f1b", 2, 4);
  CostMeter meter(program);
  meter.add(step_of(2, 4, 1));
  meter.add(step_of(2, 4, 3));
  REQUIRE(meter.steps() == 2);
  const Costs costs = meter.costs();
  CHECK(costs.stages.at(0).forward_us == 20);
  CHECK(costs.stages.at(1).forward_us == 40);
  CHECK(costs.stages.at(1).input_grad_us == 80);
  CHECK(costs.stages.at(1).weight_grad_us == 20);
  CHECK(costs.stages.at(1).recompute_us == 14);
  CHECK(costs.stages.at(1).activation_bytes == 101);
  CHECK(costs.update_us == std::vector<double>{6, 6});
  CHECK(meter.in_flight_bytes() == std::vector<double>{3000, 3001});
  CHECK(meter.layer_us() == std::vector<double>{10, 14, 10, 16});
  CHECK(simulate(program, costs).step_us > 0);
}

TEST_CASE("steps of other modes and shorter batches are not measured", "[unit]") {
  const Program program = lowered("1f1b", 2, 4);
  CostMeter meter(program);
  meter.add(step_of(2, 3, 1));
  StepResult evaluation = step_of(2, 4, 1);
  evaluation.mode = Mode::evaluate;
  meter.add(evaluation);
  CHECK(meter.steps() == 0);
}

TEST_CASE("a stage that lets go of more than it keeps holds nothing", "[unit]") {
  const Program program = lowered("1f1b", 2, 4);
  CostMeter meter(program);
  StepResult result = step_of(2, 4, 1);
  result.workers[0].stages[0].activation_bytes = -631;
  meter.add(result);
  CHECK(meter.costs().stages.at(0).activation_bytes == 0);
  CHECK(simulate(program, meter.costs()).step_us > 0);
}
