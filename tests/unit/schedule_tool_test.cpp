// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "runtime/observe/simulation_report.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::string output_of(const SimulateOptions& options) {
  std::ostringstream out;
  const int exit_code = simulate_command(options, out);
  return exit_code == 0 ? out.str() : concat("exit code ", exit_code);
}

SimulateOptions options_of(const std::string& schedule, int stages, int micro_batches) {
  SimulateOptions options;
  options.schedule = schedule;
  options.stages = stages;
  options.micro_batches = micro_batches;
  return options;
}

}  // namespace

TEST_CASE("lockstep simulate prints grid, step, bubbles, micro-batches in flight and messages", "[unit]") {
  SimulateOptions options = options_of("1f1b", 4, 8);
  check_golden("simulate_1f1b_4x8.txt", output_of(options));
  options.forward_ms = {10, 12, 12, 9};
  options.backward_ms = {21.5};
  check_golden("simulate_1f1b_4x8_uneven.txt", output_of(options));
}

TEST_CASE("lockstep simulate reads the CSV file that it wrote", "[unit]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("schedule.csv");
  SimulateOptions options = options_of("gpipe", 3, 4);
  options.csv = path;
  const std::string written = output_of(options);
  for (const std::string& name : {path, "file:" + path}) {
    const std::string read = output_of(options_of(name, 0, 0));
    CHECK(contains(written, read.substr(read.find('\n'))));
  }
  CHECK(contains(error_of<UserError>([&] { output_of(options_of(path, 4, 0)); }), "--stages: got 4, but"));
}

TEST_CASE("lockstep simulate takes virtual stages, I and W apart, the update and the norm, and auto", "[unit]") {
  SimulateOptions options = options_of("zbv", 8, 8);
  options.virtual_stages = 2;
  options.forward_ms = {10};
  options.width = 200;
  check_golden("simulate_zbv_4x2x8.txt", output_of(options));
  options.clip = true;
  CHECK(contains(output_of(options), "bubble_steady   5.88 %"));
  options = options_of("1f1b", 2, 2);
  options.forward_ms = {10};
  options.input_grad_ms = {20};
  options.weight_grad_ms = {5};
  options.update_ms = 3;
  CHECK(contains(output_of(options), "step            108.000 ms"));
  options.schedule = "auto";
  CHECK(contains(output_of(options), "\nauto: "));
}

TEST_CASE("lockstep simulate warns of a file that sums gradients in another order", "[unit]") {
  const SimulateOptions options =
      options_of(concat(LOCKSTEP_SOURCE_DIR, "/tests/data/torch_schedules/LoopedBFS_3x2x4.csv"), 0, 0);
  CHECK(contains(output_of(options), "warning: schedule "));
}

TEST_CASE("lockstep simulate draws no grid beyond a million computes, and ends in seconds", "[unit]") {
  const std::string output = output_of(options_of("1f1b", 256, 4097));
  CHECK(contains(output, "(no grid: more than 1048576 stages x micro-batches)"));
  CHECK(contains(output, "bubble          5.86 %"));
}

TEST_CASE("lockstep simulate names the flag of a bad value in one line", "[unit]") {
  const auto refused = [](SimulateOptions options) {
    const std::string message = error_of<UserError>([&] { output_of(options); });
    CHECK_FALSE(contains(message, "\n"));
    return message;
  };
  CHECK(refused(options_of("1f1b", 0, 4)) == "--stages: missing or 0, expected a number of at least 1");
  CHECK(refused(options_of("1f1b", 4, -4)) == "--micro-batches: got -4, expected a number of at least 1");
  CHECK(contains(refused(options_of("1f1b", 1 << 20, 1 << 20)), "--micro-batches: 1048576 stages x 1048576"));
  CHECK(refused(options_of("gpip", 4, 4)) ==
        "--schedule: there is no schedule 'gpip'; there are: gpipe, 1f1b, interleaved_1f1b, looped_bfs, zb_h1, "
        "interleaved_zb, zbv, dualpipev, auto, file:PATH; did you mean 'gpipe'?");
  CHECK(contains(refused(options_of("none.csv", 0, 0)), "--schedule: none.csv: cannot read"));
  SimulateOptions options = options_of("1f1b", 4, 4);
  options.virtual_stages = 2;
  CHECK(contains(refused(options), "--virtual-stages: schedule 1f1b has 1 stage per worker, got virtual_stages = 2"));
  options.virtual_stages = 3;
  CHECK(contains(refused(options), "--stages: got 4, expected a multiple of --virtual-stages (3)"));
  options = options_of("1f1b", 4, 4);
  options.forward_ms = {1, 2};
  CHECK(contains(refused(options), "--forward-ms: got 2 numbers"));
  options.forward_ms = {-1};
  CHECK(contains(refused(options), "--forward-ms: got -1"));
  options = options_of("1f1b", 4, 4);
  options.backward_ms = {0};
  CHECK(contains(refused(options), "--backward-ms: got 0"));
  options.input_grad_ms = {1};
  options.backward_ms = {1};
  CHECK(contains(refused(options), "--backward-ms: give either this"));
  options = options_of("1f1b", 4, 4);
  options.update_ms = -1;
  CHECK(contains(refused(options), "--update-ms: got -1"));
  options = options_of("dualpipev", 4, 3);
  options.virtual_stages = 2;
  CHECK(contains(refused(options), "--micro-batches: schedule dualpipev needs 2 micro-batches per worker"));
  options = options_of("1f1b", 4, 4);
  options.csv = "/nonexistent/a.csv";
  CHECK(contains(refused(options), "--csv: cannot write /nonexistent/a.csv: No such file"));
  options = options_of("1f1b", 4, 4);
  options.width = 3;
  CHECK(contains(refused(options), "--width: got 3"));
}
