// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include "tests/test.hpp"
#include "tests/unit/terminal.hpp"

namespace lockstep {
namespace {

const ProgressState kState = {
    .step = 120, .total = 200, .loss = 2.34567, .pace = {.samples = 32, .us = 12300}, .eta_s = 12};

}  // namespace

TEST_CASE("a narrow terminal drops fields from the right", "[unit]") {
  CHECK(progress_line(kState, 0).empty());
  CHECK(progress_line(kState, 12).empty());
  CHECK(progress_line(kState, 13) == "step 120/200");
  CHECK(progress_line(kState, 20) == "step 120/200");
  CHECK(progress_line(kState, 40) == "step 120/200  loss 2.346  12.3 ms/step");
  CHECK(progress_line(kState, 80) == "step 120/200  loss 2.346  12.3 ms/step  2.60k samples/s  ETA 0:12  [######----]");
  CHECK(progress_line(kState, 200) ==
        "step 120/200  loss 2.346  12.3 ms/step  2.60k samples/s  ETA 0:12  [##################------------]");
}

TEST_CASE("operations per second are on the line where there is room for more than they", "[unit]") {
  ProgressState state = kState;
  state.pace.tokens_per_sample = 64;
  state.pace.operations = 12300 * 1.5e6;
  state.pace.product_rate = 3e12;
  const std::string pace = "step 120/200  loss 2.346  12.3 ms/step  167k tokens/s  ETA 0:12  ";
  CHECK(progress_line(state, 80) == pace + "[#######-----]");
  CHECK(progress_line(state, 93) == pace + "[###############----------]");
  CHECK(progress_line(state, 94) == pace + "1.50 TFLOP/s (50 %)  [###--]");
  CHECK(progress_line(state, 65) == "step 120/200  loss 2.346  12.3 ms/step  167k tokens/s  ETA 0:12");
}

TEST_CASE("work that is no training says what it is at", "[unit]") {
  ProgressState state{.step = 3, .total = 12, .eta_s = 12};
  state.what = "h.0, 4 rows";
  CHECK(progress_line(state, 80) == "3/12  h.0, 4 rows  ETA 0:12  [#######-----------------------]");
  CHECK(progress_line(state, 20) == "3/12  h.0, 4 rows");
}

TEST_CASE("the line never fills a terminal, whatever it shows", "[unit]") {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<ProgressState> states = {
      kState,
      {},
      {.step = 5, .total = 3, .loss = -1e300, .pace = {.samples = 1, .operations = 1e300, .us = 1e300}, .eta_s = 1e300},
      {.step = 1, .total = 1, .loss = infinity, .pace = {.samples = 1, .us = infinity}, .eta_s = infinity},
      {.step = 1, .total = 1, .loss = infinity, .pace = {.samples = 1, .operations = 1, .us = 0}, .eta_s = infinity}};
  for (const ProgressState& state : states) {
    for (int columns = 0; columns <= 200; ++columns) {
      CHECK(progress_line(state, columns).size() <= static_cast<std::size_t>(std::max(columns - 1, 0)));
    }
  }
}

TEST_CASE("durations are short and readable", "[unit]") {
  CHECK(duration_text(0) == "0:00");
  CHECK(duration_text(6.2) == "0:07");
  CHECK(duration_text(754) == "12:34");
  CHECK(duration_text(12345) == "3:25:45");
  CHECK(duration_text(185100) == "2d 03:25");
}

TEST_CASE("without a terminal nothing is printed", "[unit]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  Progress progress(10, std::make_shared<Console>(ends[1]));
  CHECK_FALSE(progress.active());
  progress.update(1, 0.5, {.samples = 1, .us = 10'000});
  progress.finish();
  close(ends[1]);
  CHECK(read_all(ends[0]).empty());
  close(ends[0]);
}

TEST_CASE("a terminal sees at most 10 drawings a second, and the last state", "[unit]") {
  const PseudoTerminal terminal(20);
  Progress progress(1000, std::make_shared<Console>(terminal.inside()));
  CHECK(progress.active());
  const auto start = std::chrono::steady_clock::now();
  for (int step = 1; step <= 1000; ++step) progress.update(step, 0.5, {.samples = 1, .us = 10'000});
  progress.finish();
  const double took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::string shown = terminal.shown();
  CHECK(shown.starts_with("\rstep 1/1000\x1b[K"));
  CHECK(shown.ends_with("\r\x1b[Kstep 1000/1000\r\n"));  // the terminal makes \r\n of \n
  CHECK(std::count(shown.begin(), shown.end(), 'K') <= 3 + static_cast<int>(took_s * 10));
}

TEST_CASE("progress that does not come to its end leaves its last state, and none where there was no update",
          "[unit]") {
  const PseudoTerminal terminal(80);
  const auto console = std::make_shared<Console>(terminal.inside());
  { Progress idle(10, console); }
  CHECK(terminal.shown().empty());
  {
    Progress progress(10, console);
    progress.update(1, 0.5, {.samples = 1, .us = 10'000});
    terminal.resize(13);
  }
  CHECK(terminal.shown().ends_with("\r\x1b[Kstep 1/10\r\n"));
}

}  // namespace lockstep
