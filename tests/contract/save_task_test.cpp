// SPDX-License-Identifier: Apache-2.0
//
// Waits for saves: real threads, limits of some tens of milliseconds. Nothing is ordered by sleeping: a task stands
// still until it is told to go on.
#include "runtime/training/save_task.hpp"

#include <future>
#include <thread>

#include "runtime/observe/watchdog.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLimit{100};
constexpr milliseconds kLong{60'000};

/// The only worker of a job, whose limit for saves is `save`.
struct Job {
  explicit Job(milliseconds save)
      : watchdog(board, {0, kLimit, kLimit, save, [](int) { return std::string("nobody"); },
                         [](int) { return std::string("no layer"); }, Log()}) {
    pulse.beat();
  }
  Pulse pulse;
  PulseBoard board{{&pulse}};
  Watchdog watchdog;
  StopFlag stop;
  WaitLimits limits{&stop, Watchdog::scan_every(kLimit), &watchdog, &pulse};
};

/// A disk that takes nothing until it is opened; opened at the end of the test in any case.
struct Disk {
  std::promise<void> promise;
  std::shared_future<void> opened = promise.get_future().share();
  bool is_open = false;
  void open() {
    if (!std::exchange(is_open, true)) promise.set_value();
  }
  ~Disk() { open(); }
};

}  // namespace

TEST_CASE("a save that takes longer than the watchdog's limit is waited for, and is called a save meanwhile",
          "[unit]") {
  Job job(kLong);
  Disk disk;
  SaveTask task([opened = disk.opened](const FileProgress&) { opened.wait(); }, kLong);
  std::thread later([&] {
    while (job.pulse.activity != Activity::saving) std::this_thread::yield();
    std::this_thread::sleep_for(3 * kLimit);  // the wait is longer; how much does not matter
    disk.open();
  });
  CHECK_NOTHROW(task.wait(job.limits));
  later.join();
  CHECK(task.is_done());
  CHECK(job.pulse.activity == Activity::none);
}

TEST_CASE("a save that moves may take longer than the limit of saves", "[unit]") {
  Job job(3 * kLimit);
  std::atomic<bool> over{false};
  SaveTask task(
      [&](const FileProgress& progress) {
        while (!over) progress();
      },
      kLong);
  const std::uint64_t before = job.pulse.beats;
  std::thread later([&] {
    std::this_thread::sleep_for(9 * kLimit);
    over = true;
  });
  CHECK_NOTHROW(task.wait(job.limits));
  later.join();
  CHECK(job.pulse.beats > before + 3);  // which is how others know
}

TEST_CASE("a save that stands still longer than its limit ends the wait, and nobody waits for its thread", "[unit]") {
  Job job(3 * kLimit);
  Disk disk;
  {
    SaveTask task([opened = disk.opened](const FileProgress&) { opened.wait(); }, kLimit);
    try {
      task.wait(job.limits);
      FAIL("it was waited for");
    } catch (const WaitTimeout& error) {
      CHECK(error.exit_code() == ExitCode::watchdog);
      CHECK_THAT(error.what(), Catch::Contains("for its own save of a checkpoint: for 0.") &&
                                   Catch::Contains("no byte was written and no file synced"));
    }
  }
  CHECK_FALSE(disk.is_open);
}

TEST_CASE("a save that was given up touches nothing more when its disk comes back", "[unit]") {
  Job job(kLimit);
  Disk disk;
  std::promise<bool> ended;
  {
    SaveTask task(
        [&ended, opened = disk.opened](const FileProgress& progress) {
          opened.wait();
          try {
            progress();
            ended.set_value(false);
          } catch (const JobStopped&) {
            ended.set_value(true);
          }
        },
        kLimit);
    CHECK_THROWS_AS(task.wait(job.limits), WaitTimeout);
  }
  disk.open();
  CHECK(ended.get_future().get());
}

TEST_CASE("a wait for a save ends when the job stops, and what moves is written to its end", "[unit]") {
  Job job(kLong);
  Disk disk;
  std::atomic<bool> written{false};
  {
    SaveTask task(
        [&, opened = disk.opened](const FileProgress&) {
          opened.wait();
          written = true;
        },
        kLong);
    job.stop.raise();
    CHECK_THROWS_AS(task.wait(job.limits), JobStopped);
    disk.open();
  }
  CHECK(written);
}

TEST_CASE("what a save threw comes out of the wait", "[unit]") {
  Job job(kLong);
  SaveTask task([](const FileProgress&) { throw Error("the disk is full"); }, kLong);
  CHECK_THROWS_WITH(task.wait(job.limits), "the disk is full");
  CHECK(task.is_done());
}
