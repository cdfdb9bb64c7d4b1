// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/story.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "runtime/base/error.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;
namespace fs = std::filesystem;

namespace {

/// A run folder with the recorders of two workers, or more; what they did is up to the test.
class Run {
 public:
  explicit Run(int ranks = 2) {
    fresh_recorder_folder(path());
    for (int row = 0; row < ranks; ++row)
      recorders.push_back(std::make_unique<FlightRecorder>(recorder_file(path(), row), owner(row, ranks)));
  }
  const std::string& path() const { return folder_.path(); }
  std::string text() const { return text_of(story_of(path()), checkpoint); }
  static FlightOwner owner(int row, int ranks) {
    return {row, row, ranks, "node", concat(row, "\t", row, "\tfc.", row, "\n")};
  }
  std::vector<std::unique_ptr<FlightRecorder>> recorders;
  std::string checkpoint;

 private:
  TemporaryFolder folder_;
};

/// Four ranks that were killed, each a process of its own, by the milliseconds after 1970 at which they were last seen:
/// rank 2 was silent first, 10 ms before rank 1.
class KilledRun : public Run {
 public:
  explicit KilledRun(const std::array<int, 4>& seen_ms = {1030, 1010, 1000, 1020}) : Run(0) {
    for (int rank = 0; rank < 4; ++rank) {
      const pid_t process = ::fork();
      if (process == 0) {
        FlightRecorder recorder(recorder_file(path(), rank), owner(rank, 4));
        recorder.begin(FlightRecord{});
        recorder.pulse().seen_ns.store(std::int64_t{seen_ms[static_cast<std::size_t>(rank)]} * 1'000'000);
        ::_exit(0);
      }
      ::waitpid(process, nullptr, 0);
      pids.push_back(process);
    }
  }

  /// As launch saw them end, the first one so.
  RankEnds ended(std::initializer_list<std::size_t> ranks, const std::string& how = "SIGKILL") const {
    RankEnds ends;
    for (const std::size_t rank : ranks) ends.seen.push_back({pids[rank], "node", ends.seen.empty() ? how : "SIGKILL"});
    return ends;
  }
  std::string name(std::size_t rank) const { return concat("rank ", rank, " on node, process ", pids[rank]); }

  std::vector<int> pids;
};

FlightRecord forward(int stage, std::int64_t step) {
  FlightRecord record;
  record.stage = stage;
  record.step = step;
  record.micro_batch = 2;
  return record;
}

FlightRecord receive(int from, int to) {
  FlightRecord record;
  record.kind = InstructionKind::receive;
  record.edge = EdgeKind::gradient;
  record.from_row = static_cast<std::int16_t>(from);
  record.to_row = static_cast<std::int16_t>(to);
  record.step = 4;
  return record;
}

}  // namespace

TEST_CASE("why names the worker that failed and its message", "[unit]") {
  Run run;
  run.recorders[0]->begin(receive(1, 0));
  run.recorders[0]->finish(FlightEnd::stopped);
  run.recorders[1]->begin(forward(1, 4));
  run.recorders[1]->finish(FlightEnd::failed, "worker 1 (stage 1), step 4: no more");
  const std::string text = run.text();
  CHECK_THAT(text, Catch::Contains("failed: rank 1 on node"));
  CHECK_THAT(text, Catch::Contains("worker 1 (stage 1), step 4: no more"));
  CHECK_THAT(text, Catch::Contains("left because another worker had failed; step 4, train, waiting for worker 1 for"));
}

TEST_CASE("why says what a killed worker was doing, and who waited", "[unit]") {
  Run run;
  run.recorders[1]->begin(forward(1, 9));
  run.recorders[1]->pulse().enter_layer(1);
  run.recorders[0]->begin(receive(1, 0));
  run.recorders[0]->pulse().alive();
  // Both of this process: only the launcher can tell them apart, or one kill ended both.
  CHECK_THAT(run.text(), Catch::Contains("was killed, or the machine went down") &&
                             Catch::Contains("in 1F2 (stage 1, micro-batch 2), layer 'fc.1'") &&
                             Catch::Contains("waiting for worker 1") && Catch::Contains("there is no checkpoint"));
  run.checkpoint = "run/checkpoints/step-00000008";
  CHECK_THAT(run.text(),
             Catch::Contains("resume from run/checkpoints/step-00000008: the same command with --resume auto"));
}

TEST_CASE("why says that a worker saves", "[unit]") {
  Run run;
  run.recorders[1]->begin(forward(1, 9));
  run.recorders[1]->pulse().enter_layer(1);
  run.recorders[1]->end();
  run.recorders[1]->pulse().turn_to(Activity::saving);
  run.recorders[0]->begin(receive(1, 0));
  const std::string text = run.text();
  CHECK_THAT(text, Catch::Contains("step 9, saving a checkpoint, for ") && !Catch::Contains("layer '"));
}

TEST_CASE("of killed ranks the one that fell silent first is named, with probably", "[unit]") {
  const KilledRun run;
  CHECK_THAT(run.text(),
             Catch::StartsWith(concat("killed: ", run.name(2),
                                      ", probably died first: its last sign of life "
                                      "came 10.0 ms before any other's: worker 2 (stage 2: fc.2), step 0")) &&
                 Catch::Contains("  <- probably first\n"));
}

TEST_CASE("of two ranks that fell silent together both are named", "[unit]") {
  const KilledRun run({1030, 1001, 1000, 1020});
  CHECK_THAT(run.text(),
             Catch::StartsWith(concat("killed: ", run.name(2), ", or ", run.name(1),
                                      ", probably died first: "
                                      "their last signs of life are 1.00 ms apart: worker 2 (stage 2: fc.2)")));
}

TEST_CASE("what launch saw of all ranks is certain", "[unit]") {
  const KilledRun run;
  remember(run.path(), run.ended({1, 0, 3, 2}));
  CHECK_THAT(run.text(),
             Catch::StartsWith(concat("killed: ", run.name(1), ", died first (SIGKILL): worker 1 (stage 1: fc.1)")) &&
                 Catch::Contains("  <- first\n"));
}

TEST_CASE("who ended first by an abort may have been ended by MPI because another was gone", "[unit]") {
  const KilledRun run;
  for (const std::string how : {"SIGABRT", "exit code 15", ""}) {
    remember(run.path(), run.ended({1, 0, 3, 2}, how));
    CHECK_THAT(run.text(), Catch::StartsWith(concat("killed: ", run.name(1), ", probably died first",
                                                    how.empty() ? "" : concat(" (", how, ")"), ": worker 1")));
  }
}

TEST_CASE("who launch saw to end later is innocent, a rank of another host is not", "[unit]") {
  const KilledRun run;
  remember(run.path(), run.ended({3, 2, 0}));  // of rank 1 it knows nothing
  CHECK_THAT(run.text(), Catch::StartsWith(concat("killed: ", run.name(1),
                                                  ", probably died first: its last sign of life "
                                                  "came 10.0 ms before any other's")));
}

TEST_CASE("what launch saw is no more than likely when a rank has left no recorder", "[unit]") {
  const KilledRun run;
  fs::remove(recorder_file(run.path(), 0));
  remember(run.path(), run.ended({1, 3, 2}));
  CHECK_THAT(run.text(), Catch::StartsWith(concat("killed: ", run.name(1), ", probably died first")));
}

TEST_CASE("a crash that mpiexec reports counts more than silence, and less than what launch saw", "[unit]") {
  const KilledRun run;
  const EndedRank crashed{run.pids[3], "node.cluster", "mpiexec reports code 11, as after SIGSEGV"};
  remember(run.path(), RankEnds{{}, crashed});
  CHECK_THAT(run.text(), Catch::StartsWith(concat("killed: ", run.name(3),
                                                  ", probably died first (mpiexec reports code 11, "
                                                  "as after SIGSEGV): worker 3 (stage 3: fc.3)")));
  remember(run.path(), RankEnds{run.ended({0, 1, 2, 3}).seen, crashed});
  CHECK_THAT(run.text(), Catch::StartsWith(concat("killed: ", run.name(0), ", died first (SIGKILL): worker 0")));
}

TEST_CASE("of several ranks that fail one is first, and the others learn its code", "[unit]") {
  Run run;
  CHECK(first_to_fail(run.path(), {1, 4, "node", "waited 3 s\nsecond line"}));
  CHECK_FALSE(first_to_fail(run.path(), {0, 1, "node", "something else"}));
  CHECK(read_first_failure(run.path()).code == 4);
  CHECK_THAT(run.text(), Catch::Contains("failed (exit code 4): rank 1 on node: waited 3 s\nsecond line"));
}

TEST_CASE("of a job that came to its end why says what the job said", "[unit]") {
  Run run;
  for (auto& recorder : run.recorders) recorder->finish(FlightEnd::done);
  CHECK_THAT(run.text(), Catch::StartsWith("all workers came to the end of the job\n"));
  remember(run.path(), JobEnd{0, "done: 5 steps, last loss 4.5"});
  CHECK_THAT(run.text(), Catch::StartsWith("the job came to its end in good order: done: 5 steps, last loss 4.5\n"));
  remember(run.path(), JobEnd{1, "stopped: not finite in step 2: first in the output of layer 1 'fc.1'"});
  CHECK_THAT(run.text(),
             Catch::StartsWith("the job ended with exit code 1: stopped: not finite in step 2: first in the "
                               "output of layer 1 'fc.1'\n"));
}

TEST_CASE("a folder without recorders is refused, and a recorder that cannot be read is named", "[unit]") {
  Run run;
  CHECK_THROWS_WITH(story_of("/proc"), Catch::Contains("no flight recorders"));
  std::ofstream(recorder_file(run.path(), 1)) << "not a recorder";
  CHECK_THAT(run.text(), Catch::Contains("worker-1.bin: not a flight recorder's file"));
}

TEST_CASE("each start keeps the recorders of the one before", "[unit]") {
  Run run;
  fresh_recorder_folder(run.path());
  CHECK_FALSE(fs::exists(recorder_file(run.path(), 0)));
  CHECK(fs::exists(run.path() + "/recorder.1/worker-0.bin"));
}

TEST_CASE("which rank was killed first is there for launch, with how sure that is", "[unit]") {
  const KilledRun run;
  CHECK(story_of(run.path()).first_killed->rank == 2);
  CHECK(story_of(run.path()).first_killed->how.empty());
  remember(run.path(), run.ended({3, 0, 1, 2}));
  const FirstKilled seen = story_of(run.path()).first_killed.value();
  CHECK(seen.rank == 3);
  CHECK(seen.how == "SIGKILL");
  CHECK(seen.certain);
  remember(run.path(), run.ended({1, 0, 2, 3}, "exit code 3"));
  CHECK(story_of(run.path()).first_killed->how == "exit code 3");
  Run failed;
  failed.recorders[0]->finish(FlightEnd::failed, "x");
  CHECK_FALSE(story_of(failed.path()).first_killed.has_value());
}
