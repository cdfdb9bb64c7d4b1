// SPDX-License-Identifier: Apache-2.0
//
// What the fuzz tests share. Every case is a function of (seed, number of the case), so that one that fails can be run
// again alone. Environment:
//
//   LOCKSTEP_FUZZ_SEED         where the random numbers start; default 1
//   LOCKSTEP_FUZZ_ITERATIONS   cases per subject (a config, a reader, ...); default: few, for CI
//   LOCKSTEP_FUZZ_CASE         run this case only, and print what was mutated
//
// A case that takes longer than a generous limit or wants gigabytes of memory fails; so does one that crashes. Whatever
// happens, the last words are the name of the case.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace lockstep::fuzz {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// 0 .. count - 1. count >= 1.
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(engine_() % count); }
  bool one_in(std::size_t count) { return below(count) == 0; }
  std::uint64_t bits() { return engine_(); }
  template <typename T>
  const T& any(const std::vector<T>& choices) {
    return choices[below(choices.size())];
  }

 private:
  std::mt19937_64 engine_;
};

/// Runs `body` for each case of `subject` and stops at the first one that fails: `body` returns what is wrong, or "".
/// Returns that with the name of the case, or "". `iterations`: the default number of cases.
std::string run_cases(const std::string& subject, int iterations,
                      const std::function<std::string(Random& random, bool show)>& body);

/// One to a few changes of single bytes, runs of bytes, ends, and pieces of `dictionary`. Deletes, repeats, overwrites.
std::string mutate_bytes(std::string text, Random& random, const std::vector<std::string>& dictionary);

/// Numbers at which something may overflow, wrap around or be taken for something else.
const std::vector<std::string>& odd_numbers();

/// What may become of mutated user input: "" when `body` returns or throws a UserError with exit code 2 and a message
/// that is one printable line (`may_have_lines`: or several, as a ScheduleError's); else what is wrong.
/// `message`: what the UserError said; empty when there was none.
std::string judge_input(const std::function<void()>& body, std::string& message, bool may_have_lines = false);

}  // namespace lockstep::fuzz
