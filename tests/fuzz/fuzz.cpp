// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/base/error.hpp"

namespace {

char current_case[256] = "no case";

void say_current_case(const char* what) {
  for (const char* text : {"\nfuzz: ", what, ": ", static_cast<const char*>(current_case), "\n"}) {
    const ssize_t ignored = write(STDERR_FILENO, text, std::strlen(text));
    static_cast<void>(ignored);
  }
}

constexpr unsigned kLimitS = 60;  // of one case, which takes milliseconds: a sanitizer on a busy machine is far below

void too_long(int) {
  say_current_case("this case takes too long");
  _exit(1);
}

}  // namespace

// AddressSanitizer calls it before its report.
extern "C" __attribute__((used, visibility("default"))) void __asan_on_error() {  // NOLINT: the sanitizer's name
  say_current_case("in this case");
}

namespace lockstep::fuzz {
namespace {

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// A blow-up becomes a std::bad_alloc, which no case may end in. Sanitizers reserve terabytes and have limits of their
/// own (tests/sanitize).
void limit_memory() {
#ifndef LOCKSTEP_SANITIZED
  rlimit limit = {};
  getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, rlim_t{3} << 30);
  setrlimit(RLIMIT_DATA, &limit);
#endif
}

}  // namespace

std::string run_cases(const std::string& subject, int iterations,
                      const std::function<std::string(Random& random, bool show)>& body) {
  limit_memory();
  const std::uint64_t seed = number_from("LOCKSTEP_FUZZ_SEED", 1);
  const std::uint64_t cases = number_from("LOCKSTEP_FUZZ_ITERATIONS", static_cast<std::uint64_t>(iterations));
  const std::uint64_t only = number_from("LOCKSTEP_FUZZ_CASE", ~std::uint64_t{0});
  std::signal(SIGALRM, too_long);
  for (std::uint64_t i = 0; i < cases; ++i) {
    const bool show = i == only;
    if (only != ~std::uint64_t{0} && !show) continue;
    std::snprintf(current_case, sizeof(current_case), "%s, LOCKSTEP_FUZZ_SEED=%llu LOCKSTEP_FUZZ_CASE=%llu",
                  subject.c_str(), static_cast<unsigned long long>(seed), static_cast<unsigned long long>(i));
    Random random(seed * 1'000'003 + i);
    alarm(kLimitS);
    const std::string wrong = body(random, show);
    alarm(0);
    if (!wrong.empty()) return concat(current_case, ": ", wrong);
  }
  return "";
}

const std::vector<std::string>& odd_numbers() {
  static const std::vector<std::string> numbers = {"0",
                                                   "1",
                                                   "-1",
                                                   "2",
                                                   "3",
                                                   "7",
                                                   "127",
                                                   "128",
                                                   "255",
                                                   "256",
                                                   "4096",
                                                   "4097",
                                                   "65535",
                                                   "65536",
                                                   "65537",
                                                   "1000000",
                                                   "16777216",
                                                   "2147483647",
                                                   "2147483648",
                                                   "-2147483648",
                                                   "4294967296",
                                                   "1000000000000",
                                                   "4611686018427387904",
                                                   "9223372036854775807",
                                                   "9223372036854775808",
                                                   "-9223372036854775808",
                                                   "18446744073709551615",
                                                   "18446744073709551616",
                                                   "0.5",
                                                   "1.0",
                                                   "-0.0",
                                                   "1e3",
                                                   "1e-320",
                                                   "1e308",
                                                   "1e309",
                                                   ".inf",
                                                   "-.inf",
                                                   ".nan",
                                                   "inf",
                                                   "nan",
                                                   "010",
                                                   "0x10",
                                                   "1_000",
                                                   "+1",
                                                   "1."};
  return numbers;
}

std::string mutate_bytes(std::string text, Random& random, const std::vector<std::string>& dictionary) {
  constexpr std::size_t most = 1 << 20;
  for (std::size_t changes = 1 + random.below(4); changes > 0; --changes) {
    const std::size_t at = random.below(text.size() + 1);
    const std::size_t length = random.below(std::min<std::size_t>(text.size() - at, 40) + 1);
    switch (random.below(9)) {
      case 0: text.erase(at, length); break;
      case 1: text.insert(at, random.any(dictionary)); break;
      case 2: text.replace(at, length, random.any(dictionary)); break;
      case 3: text.insert(at, 1, static_cast<char>(random.bits())); break;
      case 4:
        if (at < text.size()) text[at] = static_cast<char>(random.bits());
        break;
      case 5:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 6: text.insert(at, text.substr(random.below(text.size() + 1), length)); break;
      case 7:
        if (random.one_in(4)) text.resize(at);
        break;
      case 8:
        if (random.one_in(8)) {  // a long run
          const std::string piece = random.any(dictionary);
          const std::size_t times = std::size_t{1} << random.below(13);
          std::string run;
          for (std::size_t i = 0; i < times && run.size() < most; ++i) run += piece;
          text.insert(at, run);
        }
        break;
    }
  }
  return text;
}

std::string judge_input(const std::function<void()>& body, std::string& message, bool may_have_lines) {
  message.clear();
  try {
    body();
    return "";
  } catch (const UserError& error) {
    message = error.what();
    if (error.exit_code() != ExitCode::user_input) return concat("exit code ", static_cast<int>(error.exit_code()));
  } catch (const std::exception& error) {
    return concat("not a UserError: ", error.what());
  } catch (...) {
    return "something that is not an exception";
  }
  if (message.empty()) return "an empty message";
  if (message.size() > 20'000) return concat("a message of ", message.size(), " bytes");
  for (const char c : message) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 && !(c == '\n' && may_have_lines))
      return concat("a message with the character ", int{code}, ": ", message);
  }
  return "";
}

}  // namespace lockstep::fuzz
