// SPDX-License-Identifier: Apache-2.0
#include "tools/why.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/base/error.hpp"
#include "tests/test.hpp"

using namespace lockstep;
namespace fs = std::filesystem;

namespace {

/// A run folder with two workers' recorders; what they did is up to the test.
class Run {
 public:
  Run() : path_(fs::temp_directory_path() / concat("lockstep-why-", ::getpid())) {
    fs::remove_all(path_);
    fs::create_directories(path_);
    fresh_recorder_folder(path());
    for (int row = 0; row < 2; ++row)
      recorders.push_back(std::make_unique<FlightRecorder>(
          recorder_file(path(), row), FlightOwner{row, row, 2, "node", concat(row, "\t", row, "\tfc.", row, "\n")}));
  }
  ~Run() { fs::remove_all(path_); }
  std::string path() const { return path_; }
  std::string text() const { return text_of(story_of(path()), checkpoint); }

  std::vector<std::unique_ptr<FlightRecorder>> recorders;
  std::string checkpoint;

 private:
  fs::path path_;
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

TEST_CASE("why believes the launcher about who died first", "[unit]") {
  Run run;
  run.recorders[0]->begin(forward(0, 3));
  run.recorders[1]->begin(forward(1, 3));
  remember(run.path(), {::getpid(), 9, "node"});
  CHECK_THAT(run.text(),
             Catch::Contains("died first, with code 9, as after SIGKILL: worker 0 (stage 0: fc.0), step 3"));
}

TEST_CASE("of several ranks that fail one is first, and the others learn its code", "[unit]") {
  Run run;
  CHECK(first_to_fail(run.path(), {1, 4, "node", "waited 3 s\nsecond line"}));
  CHECK_FALSE(first_to_fail(run.path(), {0, 1, "node", "something else"}));
  CHECK(read_first_failure(run.path()).code == 4);
  CHECK_THAT(run.text(), Catch::Contains("failed (exit code 4): rank 1 on node: waited 3 s\nsecond line"));
}

TEST_CASE("a run that ended well has no story", "[unit]") {
  Run run;
  for (auto& recorder : run.recorders) recorder->finish(FlightEnd::done);
  CHECK_THAT(run.text(), Catch::Contains("the job came to its end in good order"));
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
