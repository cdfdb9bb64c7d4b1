// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/watchdog.hpp"

#include <array>
#include <chrono>

#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLimit{1000};
constexpr milliseconds kSaveLimit{20'000};
constexpr milliseconds kForever{1'000'000};

struct Job {
  Log log;
  std::array<Pulse, 3> pulses;
  PulseBoard board{{&pulses[0], &pulses[1], &pulses[2]}};
  Watchdog watchdog{board,
                    {0, kLimit, 5 * kLimit, kSaveLimit, [](int row) { return concat("worker ", row); },
                     [](int layer) { return concat("h.", layer); }, log}};

  explicit Job(const Log& its = {}) : log(its) {
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

TEST_CASE("a wait for one that is idle and alive goes on, is no complaint, and counts for nothing", "[unit]") {
  const TemporaryFolder folder;
  Log::Options options;
  options.file = folder.file("log.txt");
  const Log log(options);
  Job job(log);
  job.pulses[1].turn_to(2);
  milliseconds waited{0};
  const auto meanwhile = [&] {
    waited += Watchdog::scan_every(kLimit);
    job.pulses[2].turn_to(waited < 20 * kLimit ? Activity::idle : Activity::none);
  };
  CHECK(job.wait(20 * kLimit + kLimit / 2, meanwhile) == "");
  log.flush();
  CHECK(folder.read("log.txt").empty());
}

TEST_CASE("one that was idle and gives no sign of life any more is named", "[unit]") {
  Job job;
  job.pulses[1].turn_to(Activity::idle);
  CHECK_THAT(job.wait(kForever), Catch::StartsWith("waited 1.") &&
                                     Catch::Contains("worker 1, which had nothing to do, which has made no progress"));
}

TEST_CASE("who has nothing to do is idle until there is something, or the job is stopped", "[unit]") {
  Pulse pulse;
  StopFlag stop;
  WaitLimits limits;
  limits.stop = &stop;
  limits.pulse = &pulse;
  int looks = 0;
  idle_until(limits, [&](milliseconds) {
    CHECK(pulse.activity == Activity::idle);
    return ++looks == 3;
  });
  CHECK(pulse.activity == Activity::none);
  CHECK(pulse.beats >= 3);
  stop.raise();
  CHECK_THROWS_AS(idle_until(limits, [](milliseconds) { return false; }), JobStopped);
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

TEST_CASE("a worker that saves has the limit of saves, from its last byte", "[unit]") {
  Job job;
  job.pulses[1].enter_layer(4);
  job.pulses[1].turn_to(Activity::saving);
  CHECK(job.wait(19 * kLimit) == "");
  const std::string said = job.wait(kForever);
  CHECK_THAT(said, Catch::StartsWith("waited 20.") &&
                       Catch::Contains("for worker 1, which saves a checkpoint: for 2") &&
                       Catch::Contains("no byte was written and no file synced") && Catch::Contains("comm.save_s: 20"));
  CHECK_THAT(said, !Catch::Contains("layer"));
  int asked = 0;
  CHECK(job.wait(100 * kLimit, [&] {
    if (++asked % 100 == 0) job.pulses[1].beat();  // a byte in six seconds
  }) == "");
  job.pulses[1].turn_to(Activity::none);
  CHECK_THAT(job.wait(kForever), Catch::StartsWith("waited 1.") && Catch::Contains("comm.watchdog_s: 1"));
}

TEST_CASE("who waits for a worker that waits for one that saves has the limit of saves too", "[unit]") {
  Job job;
  job.pulses[1].turn_to(2);
  job.pulses[2].turn_to(Activity::saving);
  CHECK_THAT(job.wait(kForever), Catch::StartsWith("waited 20.") &&
                                     Catch::Contains("worker 1, which waits for worker 2, which saves a checkpoint: "));
}

TEST_CASE("a worker that waits for its own save is judged by it, whoever it waited for before", "[unit]") {
  Job job;
  job.pulses[0].turn_to(Activity::saving);
  CHECK_THAT(job.wait(kForever),
             Catch::StartsWith("waited 20.") && Catch::Contains("for its own save of a checkpoint: for 2"));
}

TEST_CASE("a worker that reads its part of a checkpoint has the start-up limit, from its last byte", "[unit]") {
  Job job;
  job.pulses[1].turn_to(Activity::restoring);
  int asked = 0;
  CHECK(job.wait(30 * kLimit, [&] {
    if (++asked % 50 == 0) job.pulses[1].beat();  // a byte in three seconds
  }) == "");
  CHECK_THAT(job.wait(kForever), Catch::StartsWith("waited 5.") &&
                                     Catch::Contains("reads its part of a checkpoint: for 5") &&
                                     Catch::Contains("no byte was read; the limit is comm.startup_s: 5"));
}

TEST_CASE("time in which the one who waits did not run does not count", "[unit]") {
  using Clock = WaitClock::Clock;
  const Clock::time_point start;
  WaitClock clock(start);
  CHECK(clock.look(start + milliseconds(20)) == milliseconds(20));
  CHECK(clock.look(start + milliseconds(50)) == milliseconds(50));
  // Stopped for an hour.
  CHECK(clock.look(start + std::chrono::hours(1)) == milliseconds(50) + WaitClock::kLongestGap);
  CHECK(clock.look(start + std::chrono::hours(1) + milliseconds(20)) == milliseconds(70) + WaitClock::kLongestGap);
}

TEST_CASE("a board keeps the newer news of other ranks and its own rows", "[unit]") {
  Pulse here;
  here.beat();
  PulseBoard board({&here, nullptr, nullptr});
  board.learn(0, {99, 1, 1});
  board.learn(1, {5, 0, 7, Activity::saving});
  board.learn(1, {4, -1, 3});
  board.heard_from(1);
  CHECK(board.read(0).beats == 1);
  CHECK(board.read(1).beats == 5);
  CHECK(board.read(1).layer == 7);
  CHECK(board.read(1).activity == Activity::saving);
  CHECK(board.read(2).beats == 0);
  board.heard_from(2);
  CHECK(board.read(2).beats == 1);
}
