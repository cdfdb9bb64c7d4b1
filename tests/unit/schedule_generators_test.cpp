// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("every generator gives a valid schedule and program for any size", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    for (const ScheduleShape& shape : legal_shapes(generator, 8, {1, 2, 3, 5, 8, 13, 17})) {
      const Schedule schedule = make_schedule(generator.name, shape);
      const int stages = shape.workers * shape.virtual_stages;
      CAPTURE(generator.name, shape.workers, shape.virtual_stages, shape.micro_batches);
      CHECK(schedule.name == generator.name);
      CHECK(schedule.stages == stages);
      CHECK(schedule.workers() == shape.workers);
      CHECK(text_of(validate(schedule)).empty());
      CHECK(text_of(validate(lower(schedule, chain_topology(stages), {}))).empty());
      CHECK(text_of(validate(lower(schedule, rich_topology(stages), {Mode::train, true}))).empty());
    }
  }
}

TEST_CASE("1f1b keeps at most P - stage micro-batches alive, gpipe all of them", "[unit]") {
  for (int workers = 1; workers <= 7; ++workers) {
    for (int micro_batches = 1; micro_batches <= 9; ++micro_batches) {
      const Costs costs = equal_costs(workers, 1, 1, 1);
      const Simulation one = simulate(lowered("1f1b", workers, micro_batches), costs);
      const Simulation all = simulate(lowered("gpipe", workers, micro_batches), costs);
      for (int worker = 0; worker < workers; ++worker) {
        CHECK(one.peak_micro_batches[static_cast<std::size_t>(worker)] == std::min(micro_batches, workers - worker));
        CHECK(all.peak_micro_batches[static_cast<std::size_t>(worker)] == micro_batches);
      }
    }
  }
}

TEST_CASE("gpipe runs its backwards in ascending micro-batch order", "[unit]") {
  CHECK(make_schedule("gpipe", {1, 1, 3}).rows[0] == actions({"0F0", "0F1", "0F2", "0B0", "0B1", "0B2"}));
}

TEST_CASE("shapes that a definition forbids are refused with the nearest legal one", "[unit]") {
  for (const std::string name : {"gpipe", "1f1b", "zb_h1"}) {
    const std::string message = error_of<ScheduleError>([&] { make_schedule(name, {2, 3, 4}); });
    CHECK(contains(message, "schedule " + name));
    CHECK(contains(message, "virtual_stages = 3"));
    CHECK(contains(message, "legal: virtual_stages = 1, which is 2 stages on 2 workers"));
  }
  // What is legal so far may not be in another way.
  CHECK(contains(error_of<ScheduleError>([&] {
                   make_schedule("dualpipev", {8, 1, 4});
                 }),
                 "16 stages on 8 workers; then: schedule dualpipev needs 2 micro-batches per worker, got 4"));
  for (const std::string name : {"interleaved_1f1b", "looped_bfs", "interleaved_zb"}) {
    CHECK(contains(error_of<ScheduleError>([&] {
                     make_schedule(name, {2, 1, 4});
                   }),
                   concat("schedule ", name,
                          " has >= 2 stages per worker, got virtual_stages = 1; the nearest legal: "
                          "virtual_stages = 2, which is 4 stages on 2 workers")));
  }
  for (const std::string name : {"zbv", "dualpipev"}) {
    CHECK(contains(error_of<ScheduleError>([&] { make_schedule(name, {2, 3, 4}); }), "legal: virtual_stages = 2"));
  }
  CHECK(contains(error_of<ScheduleError>([&] {
                   make_schedule("dualpipev", {4, 2, 7});
                 }),
                 "needs 2 micro-batches per worker, got 7 for 4 workers; the nearest legal: micro_batches = 8, or 3 "
                 "workers (6 stages); zbv"));
  CHECK(contains(error_of<ScheduleError>([&] { make_schedule("dualpipev", {4, 2, 1}); }), "micro_batches = 8; zbv"));
}

TEST_CASE("an unknown schedule or an empty shape is refused by name", "[unit]") {
  CHECK(error_of<ScheduleError>([] {
          make_schedule("gpip", {2, 1, 4});
        }) ==
        "there is no schedule 'gpip'; there are: gpipe, 1f1b, interleaved_1f1b, looped_bfs, zb_h1, "
        "interleaved_zb, zbv, dualpipev; did you mean 'gpipe'?");
  CHECK(contains(error_of<ScheduleError>([] { make_schedule("gpipe", {0, 1, 4}); }), "got 0 workers"));
  CHECK(contains(error_of<ScheduleError>([] { make_schedule("gpipe", {1, 1, -4}); }), "-4 micro-batches"));
}

TEST_CASE("the grids of the generators are the golden ones", "[unit]") {
  for (const auto& [name, workers, micro_batches] :
       {std::tuple("gpipe", 3, 4), std::tuple("1f1b", 4, 6), std::tuple("1f1b", 4, 2), std::tuple("1f1b", 1, 3),
        std::tuple("zb_h1", 3, 4), std::tuple("zb_h1", 4, 2)}) {
    const std::string size = concat(workers, "x", micro_batches);
    check_golden(concat("grid_", name, "_", size, ".txt"), draw(make_schedule(name, {workers, 1, micro_batches})));
  }
  const DrawOptions wide{.width = 200, .marks = {}};
  for (const auto& [name, workers, virtual_stages, micro_batches] :
       {std::tuple("interleaved_1f1b", 2, 2, 4), std::tuple("interleaved_1f1b", 3, 2, 5),
        std::tuple("looped_bfs", 2, 2, 4), std::tuple("interleaved_zb", 2, 2, 4), std::tuple("zbv", 2, 2, 4),
        std::tuple("zbv", 3, 2, 2), std::tuple("dualpipev", 2, 2, 4)}) {
    const std::string size = concat(workers, "x", virtual_stages, "x", micro_batches);
    check_golden(concat("grid_", name, "_", size, ".txt"),
                 draw(make_schedule(name, {workers, virtual_stages, micro_batches}), wide));
  }
}
