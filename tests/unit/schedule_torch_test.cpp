// SPDX-License-Identifier: Apache-2.0
//
// Schedules that torch.distributed.pipelining's own generators wrote (tests/data/torch_schedules/make.py): read, proved
// and simulated, and compared with ours.
#include <algorithm>

#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::string path_of(const std::string& name) {
  return concat(LOCKSTEP_SOURCE_DIR, "/tests/data/torch_schedules/", name, ".csv");
}

Schedule torch_schedule(const std::string& name) {
  return read_csv(path_of(name));
}

}  // namespace

TEST_CASE("our schedules are torch's, action by action, where both have the shape", "[unit]") {
  for (const auto& [file, ours, workers, virtual_stages, micro_batches] :
       {std::tuple("GPipe_3x1x4", "gpipe", 3, 1, 4), std::tuple("Interleaved1F1B_4x2x8", "interleaved_1f1b", 4, 2, 8),
        std::tuple("Interleaved1F1B_4x3x6", "interleaved_1f1b", 4, 3, 6),
        std::tuple("InterleavedZeroBubble_4x2x8", "interleaved_zb", 4, 2, 8),
        std::tuple("ZBVZeroBubble_4x2x10", "zbv", 4, 2, 10), std::tuple("ZBVZeroBubble_4x2x3", "zbv", 4, 2, 3),
        std::tuple("DualPipeV_4x2x10", "dualpipev", 4, 2, 10)}) {
    const Schedule theirs = torch_schedule(file);
    const Schedule mine = make_schedule(ours, {workers, virtual_stages, micro_batches});
    CAPTURE(file);
    CHECK(theirs.rows == mine.rows);
    CHECK(theirs.overlapped == mine.overlapped);
    CHECK(text_of(validate(theirs)).empty());
    const Program program = lower(theirs, chain_topology(theirs.stages), {});
    CHECK(text_of(validate(program)).empty());
    CHECK(simulate(program, equal_costs(theirs.stages, 1, 1, 1)).bubble > 0);
  }
}

TEST_CASE("torch's LoopedBFS sums gradients from the last micro-batch: it runs, with a warning", "[unit]") {
  const Schedule theirs = torch_schedule("LoopedBFS_3x2x4");
  const std::vector<Finding> findings = validate(theirs);
  REQUIRE_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    CHECK(finding.rule == "accumulation");
    CHECK_FALSE(finding.fatal);
  }
  CHECK_THROWS_AS(require_valid(theirs), ScheduleError);
  CHECK_NOTHROW(require_valid(theirs, Order::any));
  CHECK(contains(warning_of_order(theirs), "its bits differ"));
  CHECK(contains(warning_of_order(theirs), "3B2 stands after micro-batch 3"));
  CHECK(warning_of_order(make_schedule("looped_bfs", {3, 2, 4})).empty());

  const Topology chain = chain_topology(theirs.stages);
  const Program program = lower(theirs, chain, {});
  CHECK_THROWS_AS(require_valid(program), ScheduleError);
  CHECK_NOTHROW(require_valid(program, Order::any));
  const Costs costs = equal_costs(theirs.stages, 1, 1, 1);
  const Simulation ours = simulate(lower(make_schedule("looped_bfs", {3, 2, 4}), chain, {}), costs);
  CHECK(simulate(program, costs).step_us == ours.step_us);  // the order of the sums costs nothing
}

TEST_CASE("torch's 1F1B numbers the forwards of its last row from 1: refused with the finding", "[unit]") {
  const Schedule theirs = torch_schedule("1F1B_4x1x8");
  const std::string message = error_of<ScheduleError>([&] { require_valid(theirs, Order::any); });
  CHECK(contains(message, "missing: 3F0 is on no worker"));
  CHECK(contains(message, "1F1B_4x1x8.csv cannot run"));
}

TEST_CASE("a file of torch's with communication is refused with the reason", "[unit]") {
  const std::string message = error_of<UserError>([] { torch_schedule("Interleaved1F1B_4x2x8_lowered"); });
  CHECK(contains(message, "lowered.csv:1:1: bad action '0UNSHARD'"));
  CHECK(contains(message, "export the compute-only form"));
}
