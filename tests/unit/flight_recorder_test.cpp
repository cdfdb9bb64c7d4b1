// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/flight_recorder.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/lower.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  std::string file() const { return folder_.file("worker-3.bin"); }

 private:
  test::TemporaryFolder folder_;
};

const FlightOwner kOwner{3, 1, 2, "node7", "1\t4\th.3\n1\t5\thead\n"};

FlightRecord compute(std::int64_t step, int micro_batch) {
  FlightRecord record;
  record.step = step;
  record.stage = 1;
  record.micro_batch = micro_batch;
  return record;
}

FlightRecord receive_value(int from_row) {
  FlightRecord record;
  record.kind = InstructionKind::receive;
  record.from_row = static_cast<std::int16_t>(from_row);
  record.to_row = 3;
  record.from_stage = 0;
  record.to_stage = 1;
  record.micro_batch = 5;
  return record;
}

FlightLog read(const std::string& path) {
  std::string problem;
  auto log = read_flight_log(path, problem);
  INFO(problem);
  REQUIRE(log.has_value());
  return *log;
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("a recorder's file says who, what and what was not finished", "[unit]") {
  const Folder folder;
  FlightRecorder recorder(folder.file(), kOwner);
  CHECK(recorder.warning() == "");
  recorder.begin(compute(7, 2));
  recorder.pulse().enter_layer(4);
  recorder.end();
  recorder.begin(receive_value(0));
  const FlightLog log = read(folder.file());
  CHECK(log.owner.row == 3);
  CHECK(log.owner.host == "node7");
  CHECK(log.pid == ::getpid());
  CHECK(log.layers_of(1) == "h.3 .. head");
  CHECK(log.layer_name(5) == "head");
  CHECK(log.waits_for == 0);
  CHECK(log.beats == 3);
  CHECK(log.end == FlightEnd::none);
  REQUIRE(log.records.size() == 2);
  CHECK(log.records[0].text() == "1F2");
  CHECK(log.records[0].step == 7);
  CHECK(log.records[0].end_ns >= log.records[0].begin_ns);
  CHECK(log.last()->text() == "receive value 0->1 m5 (row 0 -> 3)");
  CHECK(log.last()->end_ns == 0);
  recorder.finish(FlightEnd::failed, "layer 'h.3' failed");
  CHECK(read(folder.file()).message == "layer 'h.3' failed");
}

TEST_CASE("a recorder keeps its last records", "[unit]") {
  const Folder folder;
  FlightRecorder recorder(folder.file(), kOwner);
  for (int i = 1; i <= FlightRecorder::kRecords + 10; ++i) {
    recorder.begin(compute(i, 0));
    recorder.end();
  }
  const FlightLog log = read(folder.file());
  REQUIRE(log.records.size() == FlightRecorder::kRecords);
  CHECK(log.records.front().step == 11);
  CHECK(log.records.back().step == FlightRecorder::kRecords + 10);
}

TEST_CASE("a recorder outlives kill -9", "[unit]") {
  const Folder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    FlightRecorder recorder(folder.file(), kOwner);
    recorder.begin(compute(12, 1));
    recorder.pulse().enter_layer(5);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  const FlightLog log = read(folder.file());
  CHECK(log.pid == child);
  CHECK(log.last()->step == 12);
  CHECK(log.last()->end_ns == 0);
  CHECK(log.layer == 5);
}

TEST_CASE("records agree with what describe() says of every instruction", "[unit]") {
  const Program program = test::lowered("1f1b", 3, 4);
  for (const auto& row : program.rows)
    for (const Instruction& instruction : row) {
      if (instruction.item >= 0) continue;  // an item's number is not recorded
      CHECK(record_of(program, instruction).text() == describe(program, instruction));
    }
}

TEST_CASE("a torn record does not count, and no bytes crash the reader", "[unit]") {
  const Folder folder;
  {
    FlightRecorder recorder(folder.file(), kOwner);
    for (int i = 0; i < 20; ++i) {
      recorder.begin(compute(i, 0));
      recorder.end();
    }
  }
  const std::string good = bytes_of(folder.file());
  std::string torn = good;
  torn[4096 + 4096 + 19 * 64 + 60] ^= 1;  // in the seal of the last record
  write(folder.file(), torn);
  CHECK(read(folder.file()).records.size() == 19);

  std::mt19937 random(1);
  std::string problem;
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    if (round % 3 == 0) bad.resize(random() % bad.size());
    for (int flips = 0; flips < 8 && !bad.empty(); ++flips)
      bad[random() % std::min<std::size_t>(bad.size(), round % 2 ? 512 : bad.size())] = static_cast<char>(random());
    write(folder.file(), bad);
    if (const auto log = read_flight_log(folder.file(), problem))
      for (const FlightRecord& record : log->records) CHECK_FALSE(record.text().empty());
  }
}

TEST_CASE("a recorder that cannot have its file warns and works on", "[unit]") {
  FlightRecorder recorder("/proc/no/such/folder/worker-0.bin", kOwner);
  CHECK_THAT(recorder.warning(), Catch::Contains("cannot make /proc/no/such/folder/worker-0.bin"));
  recorder.begin(compute(1, 0));
  recorder.end();
  CHECK(recorder.pulse().beats == 1);
}
