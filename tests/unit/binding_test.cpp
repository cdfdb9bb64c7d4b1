// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/binding.hpp"

#include <thread>

#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("workers get CPUs of their own, in order, out of the allowed ones", "[unit]") {
  CHECK(cpus_of_workers({2, 3, 8, 9}, 0, 2, 1) == std::vector<Cpus>{{2}, {3}});
  CHECK(cpus_of_workers({2, 3, 8, 9}, 0, 2, 2) == std::vector<Cpus>{{2, 3}, {8, 9}});
  CHECK(cpus_of_workers({2, 3, 8, 9}, 3, 1, 1) == std::vector<Cpus>{{9}});
}

TEST_CASE("workers that do not fit are not bound", "[unit]") {
  CHECK(cpus_of_workers({0, 1}, 0, 3, 1).empty());
  CHECK(cpus_of_workers({0, 1}, 1, 1, 2).empty());
  CHECK(cpus_of_workers({}, 0, 1, 1).empty());
}

TEST_CASE("more workers than cores is a warning, as many is none", "[unit]") {
  CHECK(more_workers_than_cores(4, 1, 4).empty());
  CHECK(more_workers_than_cores(2, 2, 4).empty());
  CHECK(more_workers_than_cores(4, 1, 2) ==
        "4 workers of 1 thread are more than the 2 cores here: they take turns, which no plan and no simulation knows "
        "of");
  CHECK(
      more_workers_than_cores(1, 2, 1) ==
      "1 worker of 2 threads are more than the 1 core here: they take turns, which no plan and no simulation knows of");
}

TEST_CASE("a bound thread may run there only, and others are not touched", "[unit]") {
  const Cpus before = allowed_cpus();
  REQUIRE(!before.empty());
  Cpus inside;
  std::thread([&] {
    bind_this_thread({before.back()});
    inside = allowed_cpus();
  }).join();
  CHECK(inside == Cpus{before.back()});
  CHECK(allowed_cpus() == before);
}
