// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/schedule/simulate.hpp"
#include "runtime/schedule/text.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("every generator gives a valid schedule and program for any size", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    for (int workers = 1; workers <= 8; ++workers) {
      for (const int micro_batches : {1, 2, 3, 5, 8, 13}) {
        const Schedule schedule = make_schedule(generator.name, {workers, 1, micro_batches});
        CAPTURE(generator.name, workers, micro_batches);
        CHECK(text_of(validate(schedule)).empty());
        CHECK(text_of(validate(lower(schedule, chain_topology(workers), {}))).empty());
        CHECK(text_of(validate(lower(schedule, rich_topology(workers), {Mode::train, true}))).empty());
      }
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

TEST_CASE("gpipe and 1f1b refuse virtual stages and say what is legal", "[unit]") {
  for (const std::string name : {"gpipe", "1f1b"}) {
    const std::string message = error_of<ScheduleError>([&] { make_schedule(name, {2, 3, 4}); });
    CHECK(contains(message, "schedule " + name));
    CHECK(contains(message, "virtual_stages = 3"));
    CHECK(contains(message, "legal: virtual_stages = 1"));
  }
}

TEST_CASE("an unknown schedule or an empty shape is refused by name", "[unit]") {
  CHECK(error_of<ScheduleError>([] {
          make_schedule("gpip", {2, 1, 4});
        }) == "unknown schedule 'gpip'; known schedules: gpipe, 1f1b");
  CHECK(contains(error_of<ScheduleError>([] { make_schedule("gpipe", {0, 1, 4}); }), "got 0 workers"));
  CHECK(contains(error_of<ScheduleError>([] { make_schedule("gpipe", {1, 1, -4}); }), "-4 micro-batches"));
}

TEST_CASE("the grids of the generators are the golden ones", "[unit]") {
  for (const auto& [name, workers, micro_batches] :
       {std::tuple("gpipe", 3, 4), std::tuple("1f1b", 4, 6), std::tuple("1f1b", 4, 2), std::tuple("1f1b", 1, 3)}) {
    const std::string size = concat(workers, "x", micro_batches);
    check_golden(concat("grid_", name, "_", size, ".txt"), draw(make_schedule(name, {workers, 1, micro_batches})));
  }
}
