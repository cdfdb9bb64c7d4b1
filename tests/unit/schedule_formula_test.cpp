// SPDX-License-Identifier: Apache-2.0
//
// Simulation against what is published, with the assumptions of each formula, and properties that hold for all sizes
// and costs.
#include <algorithm>
#include <cmath>
#include <random>

#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr double kExact = 1e-9;

Simulation simulated(const std::string& name, const ScheduleShape& shape, double f, double i, double w,
                     bool clip = false) {
  const int stages = shape.workers * shape.virtual_stages;
  return simulate(lower(make_schedule(name, shape), chain_topology(stages), {Mode::train, clip}),
                  equal_costs(stages, f, i, w));
}

void check_near(double got, double expected) {
  CHECK(std::abs(got - expected) <= kExact * std::max(1.0, std::abs(expected)));
}

}  // namespace

TEST_CASE("interleaved_1f1b and looped_bfs: the bubble is (P-1)/(vM+P-1)", "[unit]") {
  for (const std::string name : {"interleaved_1f1b", "looped_bfs"}) {
    for (int p = 1; p <= 6; ++p) {
      for (int v = 2; v <= 4; ++v) {
        for (int m = p; m <= 4 * p; m += name == "looped_bfs" ? 1 : p) {  // Megatron: P divides M
          CAPTURE(name, p, v, m);
          check_near(simulated(name, {p, v, m}, 1, 1.5, 0.5).bubble, (p - 1.0) / (v * m + p - 1.0));
        }
      }
    }
  }
}

TEST_CASE("zb_h1: idle for (P-1)(f+i-w), when w <= f, w <= i and M >= P", "[unit]") {
  for (const auto& [f, i, w] :
       {std::tuple(1.0, 1.0, 1.0), std::tuple(2.0, 2.0, 1.0), std::tuple(1.0, 1.5, 1.0), std::tuple(1.0, 1.0, 0.5)}) {
    for (int p = 1; p <= 8; ++p) {
      for (int m = p; m <= 3 * p; ++m) {
        CAPTURE(f, i, w, p, m);
        check_near(simulated("zb_h1", {p, 1, m}, f, i, w).step_us, m * (f + i + w) + (p - 1) * (f + i - w));
      }
    }
  }
}

TEST_CASE("interleaved_zb: the bubble is (P-1)/(3vM+P-1), when f = i = w and P divides M", "[unit]") {
  for (int p = 1; p <= 6; ++p) {
    for (int v = 2; v <= 4; ++v) {
      for (int m = p; m <= 4 * p; m += p) {
        CAPTURE(p, v, m);
        check_near(simulated("interleaved_zb", {p, v, m}, 1, 1, 1).bubble, (p - 1.0) / (3.0 * v * m + p - 1.0));
      }
    }
  }
}

TEST_CASE("zbv: (P-1)/(6M+P-1) alone, nothing when steps follow one another, when f = i = w and M >= 2P-1", "[unit]") {
  for (int p = 1; p <= 8; ++p) {
    for (const int m : {2 * p - 1, 2 * p, 2 * p + 1, 4 * p}) {
      CAPTURE(p, m);
      const Simulation simulation = simulated("zbv", {p, 2, m}, 1, 1, 1);
      check_near(simulation.bubble, (p - 1.0) / (6.0 * m + p - 1.0));
      if (m >= 2 * p) CHECK(simulation.bubble_steady < 0.03);
      check_near(simulation.bubble_steady, 0);
      // A global norm makes every step wait for the last worker.
      const Simulation clipped = simulated("zbv", {p, 2, m}, 1, 1, 1, /*clip=*/true);
      check_near(clipped.bubble_steady, clipped.bubble);
    }
  }
  CHECK(simulated("zbv", {4, 2, 4}, 1, 1, 1).bubble_steady > 0.1);  // M = P does not fill the pipeline
}

TEST_CASE("dualpipev: (P-1)/(6M+P-1), when f = i = w and pairs run one after the other", "[unit]") {
  for (int p = 1; p <= 8; ++p) {
    for (const int m : {2 * p, 2 * p + 1, 4 * p}) {
      CAPTURE(p, m);
      check_near(simulated("dualpipev", {p, 2, m}, 1, 1, 1).bubble, (p - 1.0) / (6.0 * m + p - 1.0));
    }
  }
}

TEST_CASE("zb_h1 beats 1f1b, and zbv beats zb_h1 at the same work", "[unit]") {
  for (const int p : {2, 4, 8}) {
    for (const int m : {2 * p, 4 * p}) {
      const double plain = simulated("1f1b", {p, 1, m}, 20, 20, 20).period_us;
      const double h1 = simulated("zb_h1", {p, 1, m}, 20, 20, 20).period_us;
      CHECK(h1 < plain);
      CHECK(simulated("zbv", {p, 2, m}, 10, 10, 10).period_us < h1);
    }
  }
}

TEST_CASE("forwards alive until their I, and bytes until W, are at most what each schedule's page says", "[unit]") {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 3 * p; ++m) {
      for (const ScheduleGenerator& generator : schedule_generators()) {
        for (const int v : {1, 2, 3}) {
          if (!is_legal(generator, {p, v, m})) continue;
          Costs costs = equal_costs(p * v, 1, 1, 1);
          for (StageCost& stage : costs.stages) stage.activation_bytes = stage.weight_grad_bytes = 1;
          const Program program = lower(make_schedule(generator.name, {p, v, m}), chain_topology(p * v), {});
          const Simulation simulation = simulate(program, costs);
          const int group = m / std::max(1, m / p) + (m % std::max(1, m / p) != 0 ? 1 : 0);
          for (int r = 0; r < p; ++r) {
            CAPTURE(generator.name, p, v, m, r);
            const int alive = simulation.peak_micro_batches[static_cast<std::size_t>(r)];
            const double until_w = simulation.peak_bytes[static_cast<std::size_t>(r)];
            const std::string& name = generator.name;
            if (name == "gpipe" || name == "looped_bfs") CHECK(alive == v * m);
            if (name == "1f1b") CHECK(alive == std::min(m, p - r));
            if (name == "interleaved_1f1b") CHECK(alive <= std::min(v * m, (v - 1) * group + 2 * (p - 1 - r) + 1));
            if (name == "zb_h1") CHECK(alive == std::min(m, p - r));
            if (name == "zb_h1") CHECK(until_w <= p + 1);  // + 1: I holds both for a moment
            if (name == "interleaved_zb") CHECK(alive <= std::min(v * m, (v - 1) * group + p - r));
            if (name == "interleaved_zb") CHECK(until_w <= (v - 1) * group + p + 1);
            if (name == "zbv") CHECK(until_w <= 2 * p + 1);
            if (name == "dualpipev") CHECK(until_w <= 2 * p + 2);
          }
        }
      }
    }
  }
}

TEST_CASE("any costs: no schedule ends before its work or its longest chain, and steady is never slower", "[unit]") {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> cost(0.1, 3.0);
  const auto draw_from = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 160; ++round) {
    const auto& generators = schedule_generators();
    const ScheduleGenerator& generator = generators[static_cast<std::size_t>(round) % generators.size()];
    const int p = draw_from(1, 6);
    const int v = generator.virtual_stages.nearest(draw_from(1, 3));
    const int m = generator.name == "dualpipev" ? draw_from(2 * p, 3 * p) : draw_from(1, 14);
    Costs costs;
    costs.links.same_host.latency_us = round % 3 == 0 ? 0.2 : 0.0;
    double chain = 0;
    for (int s = 0; s < p * v; ++s) {
      costs.stages.push_back({cost(random), cost(random), cost(random), 1, 0.5});
      chain += costs.stages.back().forward_us + costs.stages.back().input_grad_us;
    }
    const Schedule schedule = make_schedule(generator.name, {p, v, m});
    const Topology topology = round % 2 == 0 ? chain_topology(p * v) : rich_topology(p * v);
    costs.flow_bytes.assign(topology.flows.size(), 0.0);
    const Program program = lower(schedule, topology, {Mode::train, round % 5 == 0});
    CAPTURE(generator.name, p, v, m);
    CHECK(text_of(validate(program)).empty());
    const Simulation simulation = simulate(program, costs);
    const double work = *std::max_element(simulation.work_us.begin(), simulation.work_us.end());
    CHECK(simulation.step_us >= work * (1 - kExact));
    CHECK(simulation.step_us >= chain * (1 - kExact));
    CHECK(simulation.period_us >= work * (1 - kExact));
    CHECK(simulation.period_us <= simulation.step_us * (1 + kExact));
  }
}

TEST_CASE("a short batch runs the first micro-batches of any schedule over the same edges", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    for (const ScheduleShape& shape : legal_shapes(generator, 3, {6})) {
      const Schedule full = make_schedule(generator.name, shape);
      const Topology topology = rich_topology(full.stages);
      const Program program = lower(full, topology, {});
      for (int m = 1; m <= shape.micro_batches; ++m) {
        const Schedule shorter = first_micro_batches(full, m);
        CAPTURE(generator.name, shape.workers, shape.virtual_stages, m);
        CHECK(text_of(validate(shorter)).empty());
        for (const Mode mode : {Mode::train, Mode::evaluate}) {
          const Program few = lower(shorter, topology, program.wiring, {mode, false});
          CHECK(text_of(validate(few)).empty());
          CHECK(few.edges == program.edges);
        }
      }
    }
  }
  const Schedule two = make_schedule("1f1b", {2, 1, 2});
  CHECK(contains(error_of<ScheduleError>([&] { first_micro_batches(two, 3); }), "a batch of 3; legal: 1 to 2"));
}
