// SPDX-License-Identifier: Apache-2.0
//
// The judge of the fuzz tests can say no.
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "runtime/base/check.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::fuzz;

TEST_CASE("what a case must not end in is called wrong", "[fuzz]") {
  std::string message;
  CHECK(judge_input([] {}, message) == "");
  CHECK(judge_input([] { throw UserError("a.yaml:1:2: got 3, expected 4"); }, message) == "");
  CHECK(message == "a.yaml:1:2: got 3, expected 4");
  CHECK_THAT(judge_input([] { throw std::bad_alloc(); }, message), Catch::Contains("not a UserError"));
  CHECK_THAT(judge_input([] { throw std::out_of_range("at"); }, message), Catch::Contains("not a UserError: at"));
  CHECK_THAT(judge_input([] { LOCKSTEP_CHECK(false, "x"); }, message), Catch::Contains("not a UserError"));
  CHECK_THAT(judge_input([] { throw UserError(""); }, message), Catch::Contains("empty"));
  CHECK_THAT(judge_input([] { throw UserError("two\nlines"); }, message), Catch::Contains("character 10"));
  CHECK(judge_input([] { throw UserError("two\nlines"); }, message, /*may_have_lines=*/true) == "");
  CHECK_THAT(judge_input([] { throw UserError(std::string(1 << 20, 'x')); }, message),
             Catch::Contains("1048576 bytes"));
}

namespace {

/// Without the environment's number of cases, which this test does not mean.
class DefaultPlan {
 public:
  DefaultPlan() {
    for (const char* name : kNames)
      if (const char* value = std::getenv(name)) saved_.emplace_back(name, value);
    for (const char* name : kNames) unsetenv(name);
  }
  ~DefaultPlan() {
    for (const auto& [name, value] : saved_) setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  static constexpr const char* kNames[] = {"LOCKSTEP_FUZZ_ITERATIONS", "LOCKSTEP_FUZZ_CASE"};
  std::vector<std::pair<std::string, std::string>> saved_;
};

}  // namespace

TEST_CASE("a case that fails is named, and the same case gives the same random numbers", "[fuzz]") {
  const DefaultPlan plan;
  std::vector<std::uint64_t> first, second;
  const auto fill = [](std::vector<std::uint64_t>& numbers) {
    return run_cases("numbers", 5, [&numbers](Random& random, bool) {
      numbers.push_back(random.bits());
      return std::string(numbers.size() == 3 ? "the third is wrong" : "");
    });
  };
  const std::string wrong = fill(first);
  fill(second);
  CHECK(first == second);
  CHECK(first.size() == 3);
  CHECK_THAT(wrong, Catch::Contains("numbers, ") && Catch::Contains("LOCKSTEP_FUZZ_CASE=2: the third is wrong"));
}
