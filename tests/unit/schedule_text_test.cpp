// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/schedule_text.hpp"

#include <cstdio>
#include <filesystem>

#include "runtime/schedule/simulation.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("CSV comes back as it was written, for every generator", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    const Schedule schedule = make_schedule(generator.name, {3, generator.virtual_stages.least, 7});
    const Schedule back = parse_csv(to_csv(schedule), "x.csv");
    CHECK(back.rows == schedule.rows);
    CHECK(back.overlapped == schedule.overlapped);
    CHECK(back.stages == schedule.stages);
    CHECK(back.micro_batches == 7);
    CHECK(back.name == "x.csv");
  }
  CHECK(to_csv(make_schedule("1f1b", {2, 1, 2})) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
}

TEST_CASE("CSV files of torch.distributed.pipelining are read: idle cells, CRLF, split backwards", "[unit]") {
  // What _dump_csv(format="compute_only") writes for a zero-bubble schedule of 2 ranks (shortened).
  const Schedule schedule = parse_csv("0F0,0F1,,,0I0,0W0,0B1\r\n,1F0,1I0,1F1,1W0,1B1,\r\n", "zb.csv");
  CHECK(schedule.rows[0] == actions({"0F0", "0F1", "0I0", "0W0", "0B1"}));
  CHECK(schedule.rows[1] == actions({"1F0", "1I0", "1F1", "1W0", "1B1"}));
  CHECK(schedule.stages == 2);
  CHECK(parse_csv("\xEF\xBB\xBF\"0F0\", 0B0 \n\n", "spreadsheet.csv").rows[0] == actions({"0F0", "0B0"}));
}

TEST_CASE("an overlapped pair runs as F then B and is written as a pair again", "[unit]") {
  const std::string text = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n";
  const Schedule schedule = parse_csv(text, "pair.csv");
  CHECK(schedule.rows[0] == actions({"0F0", "0F1", "0B0", "0B1"}));
  REQUIRE(schedule.overlapped.size() == 1);
  CHECK(to_csv(schedule) == text);
}

TEST_CASE("a bad CSV cell is named by file, line and cell", "[unit]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"0F0,0B0\n1F0,1Q0\n", "x.csv:2:2: bad action '1Q0': no such letter"},
      {"0F0,,0SEND_F0\n", "x.csv:1:3: bad action '0SEND_F0'"},
      {"0F0\n,,\n1F0\n", "x.csv:2:1: worker 1 has no actions"},
      {"(0F1;0B0)OVERLAP\n", "x.csv:1:1: bad cell"},
      {"(0F1,0B0)OVERLAP_F_B\n", "x.csv:1:1: bad cell"},
      {"0F0,(0F1;0Z0)OVERLAP_F_B\n", "x.csv:1:2: bad action '0Z0'"},
      {"0F0,0B0\n1000000F0\n", "x.csv:2:1: stage 1000000 in a file of 3 actions"},
      {"0F0,0B2147483647\n", "x.csv:1:2: micro-batch 2147483647 in a file of 2 actions"},
      {" \n\n", "x.csv: no actions"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string message = error_of<UserError>([&] { parse_csv(text, "x.csv"); });
    CAPTURE(text, message);
    CHECK(message.rfind(expected, 0) == 0);
  }
  CHECK(contains(error_of<UserError>([] { parse_csv("0SEND_F0", "x"); }), "export the compute-only form"));
}

TEST_CASE("CSV files are written and read; paths that cannot be are named", "[unit]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("schedule.csv");
  const Schedule schedule = make_schedule("gpipe", {2, 1, 3});
  write_csv(schedule, path);
  CHECK(read_csv(path).rows == schedule.rows);
  CHECK(contains(error_of<UserError>([] { read_csv("/nonexistent/a.csv"); }), "/nonexistent/a.csv: cannot read"));
  CHECK(contains(error_of<Error>([&] { write_csv(schedule, "/nonexistent/a.csv"); }), "cannot write"));
  CHECK_THROWS_AS(read_csv(folder.path()), UserError);
}

TEST_CASE("a grid too wide or too tall is cut and says so, and no line is wider than asked", "[unit]") {
  const std::string grid = draw(make_schedule("gpipe", {70, 1, 9}), {.width = 60, .most_workers = 5, .marks = {}});
  std::istringstream lines(grid);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 60);
  CHECK(contains(grid, "(5 of 70 workers are shown)"));
  for (const char* shown : {"worker 2 ", "\n...\nworker 68", "worker 69"}) CHECK(contains(grid, shown));
  const std::string marked =
      draw(make_schedule("gpipe", {70, 1, 9}), {.width = 60, .most_workers = 2, .marks = {{WorkerId(40), 0, "here"}}});
  CHECK(contains(marked, "\n...\nworker 40"));
  CHECK(contains(marked, "^ here\n...\nworker 69"));
  CHECK(contains(grid, "(cut at 60 columns: "));
}

TEST_CASE("grids of uneven and of looped schedules are the golden ones", "[unit]") {
  Costs costs = equal_costs(3, 10, 10, 10);
  costs.stages[1] = {35, 35, 35, 0, 0};
  check_golden("grid_uneven.txt", draw(simulate(lowered("1f1b", 3, 4), costs).timeline));
  const Schedule looped = schedule_of_rows(4, 2,
                                           {{"0F0", "0F1", "2F0", "2F1", "2I0", "2W0", "2B1", "0B0", "0B1"},
                                            {"1F0", "1F1", "3F0", "3B0", "3F1", "3B1", "1B0", "1B1"}});
  check_golden("grid_looped.txt", draw(looped));
}

TEST_CASE("a schedule that cannot run is drawn in order and says so", "[unit]") {
  const Schedule bad = schedule_of_rows(2, 1, {{"0B0", "0F0"}, {"1F0", "1B0"}});
  DrawOptions options;
  options.marks = {{WorkerId(0), 0, "order"}};
  CHECK(draw(bad, options) ==
        "worker 0 | B0 F0\n"
        "           ^ order\n"
        "worker 1 | F0 B0\n"
        "(it cannot run: drawn in order, not in time)\n");
}
