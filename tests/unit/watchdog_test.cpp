// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/watchdog.hpp"

#include <array>

#include "tests/test.hpp"

using namespace lockstep;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLimit{1000};
constexpr milliseconds kForever{1'000'000};

struct Job {
  std::array<Pulse, 3> pulses;
  PulseBoard board{{&pulses[0], &pulses[1], &pulses[2]}};
  Watchdog watchdog{board,
                    {0, kLimit, 5 * kLimit, [](int row) { return concat("worker ", row); },
                     [](int layer) { return concat("h.", layer); }, Log()}};

  Job() {
    for (Pulse& pulse : pulses) pulse.beat();
    pulses[0].turn_to(1);
  }
  /// Waits as a channel does, without the time: `time` at most; what the watchdog threw, or "".
  std::string wait(
      milliseconds time, const std::function<void()>& meanwhile = [] {}) {
    watchdog.begin_wait();
    milliseconds waited = Watchdog::scan_every(kLimit);
    try {
      while (waited < time) {
        meanwhile();
        waited = watchdog.overdue(waited, "");
      }
      return "";
    } catch (const WaitTimeout& error) {
      CHECK(error.exit_code() == ExitCode::watchdog);
      return error.what();
    }
  }
};

}  // namespace

TEST_CASE("a wait for a worker that stands still ends and names it, its layer and the key", "[unit]") {
  Job job;
  job.pulses[1].enter_layer(4);
  const std::string said = job.wait(kForever);
  CHECK_THAT(said, Catch::Contains("for worker 1, which has made no progress for") &&
                       Catch::Contains("in layer 'h.4'") && Catch::Contains("comm.watchdog_s"));
}

TEST_CASE("a wait for a worker that moves goes on", "[unit]") {
  Job job;
  CHECK(job.wait(5 * kLimit, [&] { job.pulses[1].beat(); }) == "");
}

TEST_CASE("a wait for a worker that itself waits for one that moves goes on", "[unit]") {
  Job job;
  job.pulses[1].turn_to(2);
  CHECK(job.wait(5 * kLimit, [&] { job.pulses[2].beat(); }) == "");
}

TEST_CASE("the end of a chain of waits is named, not only its beginning", "[unit]") {
  Job job;
  job.pulses[1].turn_to(2);
  job.pulses[2].enter_layer(9);
  CHECK_THAT(job.wait(kForever), Catch::Contains("for worker 1, which waits for worker 2, which has made no progress"));
}

TEST_CASE("workers that wait for each other in a circle are not moving", "[unit]") {
  Job job;
  job.pulses[1].turn_to(2);
  job.pulses[2].turn_to(1);
  CHECK_THAT(job.wait(kForever), Catch::Contains("worker 1, which waits for worker 2"));
}

TEST_CASE("a worker that has not begun has the start-up limit", "[unit]") {
  Job job;
  job.pulses[1].beats = 0;
  CHECK(job.wait(3 * kLimit) == "");
  CHECK_THAT(job.wait(kForever), Catch::Contains("still starts") && Catch::Contains("comm.startup_s"));
}

TEST_CASE("a board keeps the newer news of other ranks and its own rows", "[unit]") {
  Pulse here;
  here.beat();
  PulseBoard board({&here, nullptr, nullptr});
  board.learn(0, {99, 1, 1});
  board.learn(1, {5, 0, 7});
  board.learn(1, {4, -1, 3});
  board.heard_from(1);
  CHECK(board.read(0).beats == 1);
  CHECK(board.read(1).beats == 5);
  CHECK(board.read(1).layer == 7);
  CHECK(board.read(2).beats == 0);
  board.heard_from(2);
  CHECK(board.read(2).beats == 1);
}
