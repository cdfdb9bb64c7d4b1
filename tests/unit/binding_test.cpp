// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/binding.hpp"

#include <thread>

#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("workers get CPUs of their own, in order, out of the allowed ones", "[unit]") {
  CHECK(cpus_of_workers({2, 3, 8, 9}, 0, 2, 1) == std::vector<Cpus>{{2}, {3}});
  CHECK(cpus_of_workers({2, 3, 8, 9}, 0, 2, 2) == std::vector<Cpus>{{2, 3}, {8, 9}});
  CHECK(cpus_of_workers({2, 3, 8, 9}, 3, 1, 1) == std::vector<Cpus>{{9}});
}

TEST_CASE("more workers than cores are told of the host where they are", "[unit]") {
  CHECK(more_than_cores({{"", {0, 1}, 2}}, 1) == "");
  CHECK(more_than_cores({{"", {0, 1}, 2}}, 2) == "2 workers of 2 thread(s) are more than the 2 cores here");
  // Ranks that share a host's cores, and ranks that were bound to their own.
  CHECK(more_than_cores({{"a", {0, 1}, 1}, {"a", {0, 1}, 1}}, 1) == "");
  CHECK(more_than_cores({{"a", {0, 1}, 2}, {"a", {0, 1}, 1}, {"b", {0}, 1}}, 1) ==
        "3 workers of 1 thread(s) are more than the 2 cores of a");
  CHECK(more_than_cores({{"a", {0}, 1}, {"a", {1}, 1}}, 1) == "");
  CHECK(more_than_cores({{"a", {0}, 2}, {"a", {1, 2, 3}, 1}}, 1) ==
        "2 workers of 1 thread(s) are more than the 1 cores of a");
}

TEST_CASE("workers that do not fit are not bound", "[unit]") {
  CHECK(cpus_of_workers({0, 1}, 0, 3, 1).empty());
  CHECK(cpus_of_workers({0, 1}, 1, 1, 2).empty());
  CHECK(cpus_of_workers({}, 0, 1, 1).empty());
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
