// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/auto.hpp"

#include <algorithm>

#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Costs costs_of(int stages, double f, double i, double w) {
  Costs costs = equal_costs(stages, f * 1000, i * 1000, w * 1000);
  for (StageCost& stage : costs.stages) stage.activation_bytes = stage.weight_grad_bytes = 1024;
  return costs;
}

void check_not_worse_than_any(const Costs& costs, const ScheduleShape& shape) {
  const Topology topology = chain_topology(shape.workers * shape.virtual_stages);
  const BestSchedule best = best_schedule(topology, costs, shape);
  CAPTURE(best.reason, shape.workers, shape.virtual_stages, shape.micro_batches);
  CHECK(best.schedule.name == "auto");
  CHECK(text_of(validate(best.schedule)).empty());
  const Program program = lower(best.schedule, topology, {});
  CHECK(text_of(validate(program)).empty());
  CHECK(simulate(program, costs).period_us == best.simulated.period_us);
  for (const ScheduleGenerator& generator : schedule_generators()) {
    if (!is_legal(generator, shape)) continue;
    CAPTURE(generator.name);
    const Schedule fixed = make_schedule(generator.name, shape);
    CHECK(best.simulated.period_us <= simulate(lower(fixed, topology, {}), costs).period_us * (1 + 1e-9));
  }
}

}  // namespace

TEST_CASE("auto is not worse than any generator, for equal and unequal costs and uneven stages", "[unit]") {
  for (const ScheduleShape& shape : {ScheduleShape{4, 1, 8}, ScheduleShape{4, 2, 8}, ScheduleShape{3, 3, 5}}) {
    const int stages = shape.workers * shape.virtual_stages;
    check_not_worse_than_any(costs_of(stages, 20, 20, 20), shape);
    check_not_worse_than_any(costs_of(stages, 20, 20, 10), shape);
    check_not_worse_than_any(costs_of(stages, 20, 30, 20), shape);
    Costs uneven = costs_of(stages, 20, 20, 20);
    uneven.stages[0].forward_us *= 1.5;
    uneven.stages[1].weight_grad_us *= 2;
    uneven.stages.back().input_grad_us *= 1.7;
    check_not_worse_than_any(uneven, shape);
  }
}

TEST_CASE("with unequal costs auto finds what no generator has", "[unit]") {
  const Topology topology = chain_topology(4);
  const Costs costs = costs_of(4, 20, 30, 20);
  const BestSchedule best = best_schedule(topology, costs, {4, 1, 12});
  INFO(best.reason);
  CHECK(contains(best.chosen, "list schedule"));
  CHECK(best.simulated.period_us < simulate(lowered("zb_h1", 4, 12), costs).period_us);
}

TEST_CASE("auto is deterministic and says why", "[unit]") {
  const Topology topology = chain_topology(8);
  const Costs costs = costs_of(8, 20, 25, 15);
  const BestSchedule one = best_schedule(topology, costs, {4, 2, 8});
  const BestSchedule two = best_schedule(topology, costs, {4, 2, 8});
  CHECK(one.schedule.rows == two.schedule.rows);
  CHECK(one.reason == two.reason);
  CHECK(contains(one.reason, " ms a step"));
  CHECK(contains(one.reason, "by simulation"));
}

TEST_CASE("auto keeps the limit, and names the smallest one when nothing fits", "[unit]") {
  const Topology topology = chain_topology(4);
  const Costs costs = costs_of(4, 20, 20, 20);
  const double free = best_schedule(topology, costs, {4, 1, 12}).simulated.period_us;
  double before = 0;
  for (const double limit : {2.0, 3.0, 4.0, 6.0, 8.0, 16.0}) {
    BestOptions options;
    options.limit_bytes = limit * 1024;
    const BestSchedule best = best_schedule(topology, costs, {4, 1, 12}, options);
    CAPTURE(limit, best.reason);
    for (const double bytes : best.simulated.peak_bytes) CHECK(bytes <= options.limit_bytes);
    CHECK(best.simulated.period_us >= free * (1 - 1e-9));
    if (before > 0) CHECK(best.simulated.period_us <= before * (1 + 1e-9));  // more room is never worse
    before = best.simulated.period_us;
  }
  BestOptions options;
  options.limit_bytes = 100;
  const std::string message = error_of<ScheduleError>([&] { best_schedule(topology, costs, {4, 1, 12}, options); });
  INFO(message);
  const std::string before_number = "(";
  REQUIRE(contains(message, " bytes); more workers"));
  const std::size_t end = message.find(" bytes); more workers");
  options.limit_bytes = std::stod(message.substr(message.rfind(before_number, end) + 1));
  CHECK_NOTHROW(best_schedule(topology, costs, {4, 1, 12}, options));
  options.limit_bytes -= 1;
  CHECK_THROWS_AS(best_schedule(topology, costs, {4, 1, 12}, options), ScheduleError);
}

TEST_CASE("auto keeps a placement that is given", "[unit]") {
  BestOptions options;
  options.row_of_stage = row_of_stage(make_schedule("zbv", {3, 2, 1}));
  const Costs costs = costs_of(6, 20, 20, 20);
  for (const int m : {1, 2, 7}) {
    const BestSchedule best = best_schedule(chain_topology(6), costs, {3, 2, m}, options);
    CHECK(row_of_stage(best.schedule) == options.row_of_stage);
  }
}

TEST_CASE("auto takes skips and frozen stages, and refuses what is too large or does not fit", "[unit]") {
  Topology topology = chain_with_skip(6, 0, 5, true);
  topology.has_weight_grad[1] = false;
  const BestSchedule best = best_schedule(topology, costs_of(6, 20, 20, 20), {3, 2, 5});
  CHECK(text_of(validate(lower(best.schedule, topology, {}))).empty());
  const Topology large = chain_topology(64);
  CHECK(contains(error_of<ScheduleError>([&] {
                   best_schedule(large, costs_of(64, 1, 1, 1), {64, 1, 65});
                 }),
                 "64 stages x 65 micro-batches is more than it looks through, which is a product of 4096"));
  CHECK(contains(error_of<ScheduleError>([&] {
                   best_schedule(large, costs_of(64, 1, 1, 1), {32, 1, 4});
                 }),
                 "32 workers with 1 stages each"));
}
