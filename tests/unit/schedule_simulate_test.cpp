// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/simulation.hpp"

#include <algorithm>
#include <map>
#include <random>

#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr double kExact = 1e-12;

double relative_error(double got, double expected) {
  return std::abs(got - expected) / std::abs(expected);
}

std::vector<StageCost> random_stages(int stages, std::mt19937& random) {
  std::uniform_real_distribution<double> cost(0.1, 3.0);
  std::vector<StageCost> list(static_cast<std::size_t>(stages));
  for (StageCost& stage : list) stage = {cost(random), cost(random), cost(random), 0, 0};
  return list;
}

/// The longest path through rows and dependencies, written apart from the simulator: what no execution can beat.
double longest_path(const Schedule& schedule, const Topology& topology, const std::vector<StageCost>& costs) {
  const StageGraph graph = stage_graph(topology);
  std::map<Action, double> done;
  std::vector<std::size_t> next(schedule.rows.size(), 0);
  std::vector<double> free_at(schedule.rows.size(), 0.0);
  double end = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t row = 0; row < next.size(); ++row) {
      while (next[row] < schedule.rows[row].size()) {
        const Action action = schedule.rows[row][next[row]];
        const StageCost& cost = costs[static_cast<std::size_t>(action.stage.value())];
        double start = free_at[row];
        bool ready = true;
        for (Action required : required_before(action, graph)) {
          if (required.op == Op::input_grad) required.op = Op::backward;
          ready = ready && done.count(required) > 0;
          if (ready) start = std::max(start, done[required]);
        }
        if (!ready) break;
        free_at[row] = done[action] =
            start + (action.op == Op::forward ? cost.forward_us : cost.input_grad_us + cost.weight_grad_us);
        end = std::max(end, free_at[row]);
        ++next[row];
        moved = true;
      }
    }
  }
  return end;
}

Topology without_targets(int stages) {
  Topology topology = chain_topology(stages);
  std::erase_if(topology.flows, [](const Flow& flow) { return !flow.differentiable; });
  return topology;
}

}  // namespace

TEST_CASE("with equal stages and free messages the bubble of gpipe and 1f1b is (p-1)/(m+p-1)", "[unit]") {
  for (const std::string name : {"gpipe", "1f1b"}) {
    for (int p = 1; p <= 10; ++p) {
      for (int m = 1; m <= 16; ++m) {
        const Simulation simulation = simulate(lowered(name, p, m), equal_costs(p, 1, 1.5, 0.25));
        CAPTURE(name, p, m);
        CHECK(std::abs(simulation.bubble - (p - 1.0) / (m + p - 1.0)) < kExact);
        CHECK(std::abs(simulation.bubble_steady - simulation.bubble) < kExact);
        CHECK(relative_error(simulation.step_us, (m + p - 1) * 2.75) < kExact);
      }
    }
  }
}

TEST_CASE("gpipe with unequal stages takes (m-1)(max f + max b) + sum t", "[unit]") {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const int p = 1 + round % 9;
    const int m = 1 + round % 13;
    Costs costs;
    costs.stages = random_stages(p, random);
    double sum = 0, forward = 0, backward = 0;
    for (const StageCost& stage : costs.stages) {
      const double b = stage.input_grad_us + stage.weight_grad_us;
      sum += stage.forward_us + b;
      forward = std::max(forward, stage.forward_us);
      backward = std::max(backward, b);
    }
    CHECK(relative_error(simulate(lowered("gpipe", p, m), costs).step_us, (m - 1) * (forward + backward) + sum) <
          kExact);
  }
}

TEST_CASE("with free messages no program waits for anything but its dependencies, skips included", "[unit]") {
  std::mt19937 random(2);
  for (int round = 0; round < 120; ++round) {
    const int p = 2 + round % 9;
    const int m = 1 + round % 17;
    const Schedule schedule = make_schedule(round % 4 == 0 ? "gpipe" : "1f1b", {p, 1, m});
    const Topology topology = round % 3 == 0 && p > 2 ? chain_with_skip(p, 0, p - 1, true) : chain_topology(p);
    Costs costs;
    costs.stages = random_stages(p, random);
    CAPTURE(schedule.name, p, m);
    CHECK(relative_error(simulate(lower(schedule, topology, {}), costs).step_us,
                         longest_path(schedule, topology, costs.stages)) < kExact);
  }
}

TEST_CASE("a message costs latency and bytes over bandwidth, once each way", "[unit]") {
  Costs costs = equal_costs(2, 10, 10, 10);
  costs.flow_bytes = {600};
  costs.links.same_host = {5, 100};
  const Simulation simulation = simulate(lowered("1f1b", 2, 1), costs);
  // The header's latency stands in front of worker 1 only; worker 0 is at its forward meanwhile.
  CHECK(relative_error(simulation.step_us, 60 + 2 * (5 + 6)) < kExact);
  CHECK(simulation.messages == 2);
}

TEST_CASE("a slow link throttles: a send waits for the one before it", "[unit]") {
  Costs costs = equal_costs(2, 1, 1, 1);
  costs.flow_bytes = {100};
  costs.links.same_host = {0, 1};  // a message takes 100 us
  const Program program = lower(make_schedule("gpipe", {2, 1, 4}), without_targets(2), {Mode::evaluate, false});
  CHECK(relative_error(simulate(program, costs).step_us, 1 + 4 * 100 + 1) < kExact);
}

TEST_CASE("a message that workers move themselves takes from both, unless the receiver waits for it", "[unit]") {
  Costs costs = equal_costs(2, 1, 1, 1);
  costs.flow_bytes = {100};
  costs.links.same_host.busy_us_per_byte = 0.02;
  const Program program = lower(make_schedule("gpipe", {2, 1, 4}), without_targets(2), {Mode::evaluate, false});
  const Simulation simulation = simulate(program, costs);
  CHECK(relative_error(simulation.step_us, 4 * (1 + 2)) < kExact);
  CHECK(simulation.work_us == std::vector<double>{4, 4});
  costs.stages[0].forward_us = 10;  // the receiver moves it while it waits: only the sender is held up
  CHECK(relative_error(simulate(program, costs).step_us, 4 * (10 + 2)) < kExact);
}

TEST_CASE("steps follow each other without a barrier: evaluation keeps every worker busy", "[unit]") {
  const Program program = lower(make_schedule("gpipe", {4, 1, 8}), without_targets(4), {Mode::evaluate, false});
  const Simulation simulation = simulate(program, equal_costs(4, 1, 1, 1));
  CHECK(std::abs(simulation.bubble - 3.0 / 11.0) < kExact);
  CHECK(std::abs(simulation.bubble_steady) < kExact);
  CHECK(relative_error(simulation.period_us, 8) < kExact);
}

TEST_CASE("the update counts as work and lengthens the step", "[unit]") {
  Costs costs = equal_costs(2, 1, 1, 1);
  costs.update_us = {4, 4};
  const Simulation simulation = simulate(lowered("gpipe", 2, 3), costs);
  CHECK(relative_error(simulation.step_us, (3 + 1) * 3 + 4) < kExact);
  CHECK(relative_error(simulation.work_us[0], 9 + 4) < kExact);
}

TEST_CASE("with a global norm every update waits for all workers", "[unit]") {
  Costs costs = equal_costs(3, 1, 1, 1);
  costs.update_us = {1, 1, 1};
  const auto start_of_update = [&](bool clip) {
    const Simulation simulation = simulate(lowered("1f1b", 3, 2, {Mode::train, clip}), costs);
    for (const Span& span : simulation.timeline.spans) {
      if (span.worker.value() == 2 && span.what.kind == InstructionKind::update) return span.start_us;
    }
    return -1.0;
  };
  CHECK(relative_error(start_of_update(false), 2 + 2 * 3) < kExact);  // its own last backward
  CHECK(relative_error(start_of_update(true), 4 * 3) < kExact);       // that of worker 0
}

TEST_CASE("held bytes last from F to I or B, those of W from I to W", "[unit]") {
  Costs costs;
  costs.stages = {{1, 1, 1, 100, 30}};
  const Schedule split = schedule_of_rows(1, 3, {{"0F0", "0F1", "0I0", "0F2", "0I1", "0I2", "0W0", "0W1", "0W2"}});
  const Simulation simulation = simulate(lower(split, chain_topology(1), {}), costs);
  CHECK(simulation.peak_bytes[0] == 230);  // at 0F2: 2 x 100 + 30
  CHECK(simulation.peak_micro_batches[0] == 2);
  CHECK(simulate(lowered("gpipe", 1, 3), costs).peak_bytes[0] == 300);
}

TEST_CASE("receive slots count from their post until the message is used", "[unit]") {
  Costs costs = equal_costs(2, 1, 1, 1);
  costs.flow_bytes = {7};
  for (StageCost& stage : costs.stages) stage.activation_bytes = 100;
  const Simulation simulation = simulate(lowered("1f1b", 2, 4), costs);
  CHECK(simulation.peak_bytes[1] == 107);  // one alive, the next one's slot posted
  CHECK(simulation.peak_bytes[0] == 214);  // the last two backwards: two alive, two gradients
}

TEST_CASE("evaluation holds nothing beyond the compute", "[unit]") {
  Costs costs = equal_costs(2, 1, 1, 1);
  for (StageCost& stage : costs.stages) stage.activation_bytes = 100;
  const Simulation simulation = simulate(lowered("gpipe", 2, 5, {Mode::evaluate, false}), costs);
  CHECK(simulation.peak_bytes == std::vector<double>{100, 100});
  CHECK(simulation.peak_micro_batches == std::vector<int>{1, 1});
}

TEST_CASE("a timeline has every compute of every step, per worker ascending and without overlap", "[unit]") {
  std::mt19937 random(3);
  Costs costs;
  costs.stages = random_stages(4, random);
  costs.links.same_host.latency_us = 0.3;
  const Timeline timeline = simulate(lowered("1f1b", 4, 6), costs, 3).timeline;
  std::map<int, double> end;
  std::map<int, int> computes;
  for (const Span& span : timeline.spans) {
    CHECK(span.start_us >= end[span.worker.value()]);
    CHECK(span.end_us >= span.start_us);
    end[span.worker.value()] = span.end_us;
    if (span.what.kind == InstructionKind::compute) ++computes[span.step];
  }
  CHECK(computes == std::map<int, int>{{0, 48}, {1, 48}, {2, 48}});
}

TEST_CASE("a program that blocks and costs that do not fit are refused", "[unit]") {
  Program program = lowered("1f1b", 2, 2);
  auto& row = program.rows[1];
  row.erase(row.begin() + position_of(program, 1, "post value 0->1 m0 (row 0 -> 1)"));
  CHECK(
      contains(error_of<ScheduleError>([&] { simulate(program, equal_costs(2, 1, 1, 1)); }), "1f1b 2x2 train blocks"));
  const Program good = lowered("1f1b", 2, 2);
  CHECK(
      contains(error_of<UserError>([&] { simulate(good, equal_costs(3, 1, 1, 1)); }), "3 costs of stages, expected 2"));
  CHECK(contains(error_of<UserError>([&] { simulate(good, equal_costs(2, -1, 1, 1)); }), "forward_us is -1"));
  CHECK(contains(error_of<UserError>([&] { simulate(good, equal_costs(2, 1, 1, 1), -1); }), "-1 steps"));
  CHECK(simulate(good, equal_costs(2, 1, 1, 1), 0).timeline.spans.empty());
  CHECK(simulate(good, equal_costs(2, 1, 1, 1), 0).step_us == simulate(good, equal_costs(2, 1, 1, 1)).step_us);
}

TEST_CASE("a thousand workers are simulated in linear time", "[unit]") {
  const Simulation simulation = simulate(lowered("1f1b", 1024, 48), equal_costs(1024, 1, 1, 1));
  CHECK(std::abs(simulation.bubble - 1023.0 / 1071.0) < kExact);
}

TEST_CASE("what is recomputed costs its forward again and holds its inputs alone", "[unit]") {
  Costs costs = equal_costs(2, 10, 20, 5);
  for (StageCost& stage : costs.stages) {
    stage.activation_bytes = 100;
    stage.weight_grad_bytes = 7;
    stage.recompute_us = 9;
    stage.recompute_activation_bytes = 10;
  }
  const auto of = [&costs](const char* name, Recompute recompute) {
    return simulate(lower(make_schedule(name, {2, 1, 4}), without_targets(2), {.recompute = recompute}), costs);
  };
  CHECK(of("gpipe", Recompute::never).work_us == std::vector<double>{140, 140});
  CHECK(of("gpipe", Recompute::always).work_us == std::vector<double>{176, 176});
  CHECK(of("1f1b", Recompute::except_last).work_us == std::vector<double>{176, 140});
  CHECK(of("gpipe", Recompute::never).peak_bytes == std::vector<double>{400, 400});
  CHECK(of("gpipe", Recompute::always).peak_bytes == std::vector<double>{40, 40});
  CHECK(of("1f1b", Recompute::always).peak_bytes == std::vector<double>{20, 10});
  CHECK(of("1f1b", Recompute::except_last).peak_bytes == std::vector<double>{20, 100});
  // The activations that W needs live from I to W, recomputed or not.
  CHECK(of("zb_h1", Recompute::always).peak_bytes[1] > 10);
}

TEST_CASE("post-validation takes the update out of the way of the norm", "[unit]") {
  Costs costs = equal_costs(3, 10, 10, 10);
  costs.update_us = {4, 4, 4};
  const auto step_us = [&costs](bool post_validation) {
    LowerOptions options;
    options.clip = true;
    options.post_validation = post_validation;
    return simulate(lower(make_schedule("1f1b", {3, 1, 4}), without_targets(3), options), costs).step_us;
  };
  CHECK(step_us(true) == step_us(false));  // row 0 is the last one: it waits for no norm, only for itself
  costs.update_us = {0, 4, 4};
  CHECK(step_us(true) == step_us(false) - 4);
}
