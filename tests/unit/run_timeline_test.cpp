// SPDX-License-Identifier: Apache-2.0
//
// From spans to a timeline, as it is recorded, simulated, written and read.
#include "runtime/observe/clocks.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/seeing_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("a run records up to three steps after up to two of warming up", "[unit]") {
  const auto range = [](std::int64_t total, std::int64_t done = 0) {
    const RecordRange found = usual_range(total, done);
    return std::pair(found.first, found.steps);
  };
  CHECK(range(1) == std::pair<std::int64_t, int>(1, 1));
  CHECK(range(2) == std::pair<std::int64_t, int>(2, 1));
  CHECK(range(3) == std::pair<std::int64_t, int>(2, 2));
  CHECK(range(4) == std::pair<std::int64_t, int>(2, 3));
  CHECK(range(5) == std::pair<std::int64_t, int>(3, 3));
  CHECK(range(1000) == std::pair<std::int64_t, int>(3, 3));
  CHECK(range(1000, 400) == std::pair<std::int64_t, int>(403, 3));
}

TEST_CASE("a recorder takes work and waits of its steps, and neither posts nor waits that nobody can see", "[unit]") {
  SpanRecorder recorder(WorkerId(1), {.first = 2, .steps = 2});
  const auto add = [&](Mode mode, int step, const Instruction& what, double us) {
    recorder.add(mode, step, what, 10, 10 + us);
  };
  add(Mode::train, 1, compute_of("1F0"), 5);
  add(Mode::train, 2, compute_of("1F0"), 0.1);
  add(Mode::train, 2, of_kind(InstructionKind::post), 5);
  add(Mode::train, 2, of_kind(InstructionKind::receive), 0.5);
  add(Mode::evaluate, 2, compute_of("1F0"), 5);
  add(Mode::train, 3, of_kind(InstructionKind::receive), 5);
  add(Mode::train, 4, compute_of("1F0"), 5);
  REQUIRE(recorder.spans().size() == 2);
  CHECK(recorder.spans()[0].what == compute_of("1F0"));
  CHECK(recorder.spans()[0].step == 0);
  CHECK(recorder.spans()[1].what.kind == InstructionKind::receive);
  CHECK(recorder.spans()[1].step == 1);
  CHECK_FALSE(recorder.cut());
}

TEST_CASE("a recorder keeps whole steps below its limit, and the beginning of a first step that is too long",
          "[unit]") {
  for (const std::size_t limit : {5u, 10u, 25u, 30u}) {
    SpanRecorder recorder(WorkerId(0), {.first = 1, .steps = 5, .most_spans = limit});
    for (int step = 1; step <= 5; ++step)
      for (int i = 0; i < 10; ++i) recorder.add(Mode::train, step, compute_of("0F0"), 1, 2);
    INFO(limit);
    CHECK(recorder.spans().size() == (limit < 10 ? limit : limit / 10 * 10));
    CHECK(recorder.cut());
  }
}

TEST_CASE("the offset of two clocks lies within its stated error", "[unit]") {
  // Seen by both, ours 1000 us behind: nobody leaves before both have entered.
  const double truth = 1000;
  const std::vector<ClockExchange> ours = {{10, 80}, {100, 131}, {200, 260}};
  std::vector<ClockExchange> theirs = {
      {truth + 40, truth + 70}, {truth + 120, truth + 125}, {truth + 205, truth + 290}};
  const ClockOffset offset = clock_offset(ours, theirs, /*same_kernel=*/false);
  CHECK(std::abs(offset.us - truth) <= offset.error_us);
  CHECK(offset.error_us == Approx((25 + 11) / 2.0));
  // One kernel, one clock: exact, unless the bounds say that it cannot be.
  CHECK(clock_offset(ours, theirs, true).us == Approx(offset.us));
  for (ClockExchange& exchange : theirs) exchange = {exchange.entered_us - truth, exchange.left_us - truth};
  CHECK(clock_offset(ours, theirs, true).us == 0);
  CHECK(clock_offset(ours, theirs, true).error_us == 0);
}

TEST_CASE("a run that takes exactly what its stages cost is its own simulation", "[unit]") {
  const RunTimeline run = small_run();
  CHECK(run.steps == 2);
  CHECK(same_spans(run.measured, run.simulated, 1e-3));
  const Shares measured = shares_of(run.measured, run.steps), simulated = shares_of(run.simulated, run.steps);
  CHECK(measured.bubble == Approx(simulated.bubble));
  for (const WorkerShare& share : measured.workers)
    CHECK(share.compute_us + share.other_us + share.wait_us + share.rest_us == Approx(measured.step_us));
  CHECK(measured.workers[0].compute_us == Approx(6 * (100 + 210)));
  CHECK(measured.workers[3].other_us == Approx(50));
}

TEST_CASE("the costs of a timeline are medians, of B alone or of I and W", "[unit]") {
  const Program program = lowered("1f1b", 2, 3);
  Timeline timeline{"test", 2, {}};
  const auto add = [&](const char* action, double us) {
    timeline.spans.push_back({WorkerId(0), compute_of(action), 0, 7, 7 + us});
  };
  for (const double us : {10.0, 90.0, 11.0}) add("0F0", us);
  for (const double us : {30.0, 20.0}) add("0B0", us);
  add("1I0", 5), add("1W0", 3), add("1B1", 9);
  const Costs costs = costs_of(timeline, program);
  CHECK(costs.stages[0].forward_us == Approx(11));
  CHECK(costs.stages[0].input_grad_us == Approx(25));
  CHECK(costs.stages[0].weight_grad_us == 0);
  CHECK(costs.stages[1].forward_us == 0);
  CHECK(costs.stages[1].input_grad_us == Approx(5));
  CHECK(costs.stages[1].weight_grad_us == Approx(3));
}

TEST_CASE("a step that one worker has not recorded is left out, and earlier waiting is cut off", "[unit]") {
  const Program program = lowered("1f1b", 2, 2);
  Recorded recorded = fake_recording(program, uneven_costs(program), 3);
  std::erase_if(recorded.spans, [](const Span& span) { return span.worker == WorkerId(1) && span.step == 2; });
  Instruction header = of_kind(InstructionKind::receive);
  header.edge = EdgeId(0);
  recorded.spans.push_back({WorkerId(1), header, 0, kUptimeUs - 500, kUptimeUs + 100});
  std::erase_if(recorded.spans, [&](const Span& span) {
    return span.worker == WorkerId(1) && span.step == 0 && span.what.kind == InstructionKind::receive &&
           span.what != header;
  });
  const std::optional<RunTimeline> run = measured_timeline(program, recorded, 3);
  REQUIRE(run);
  CHECK(run->steps == 2);
  double least = 1e9;
  for (const Span& span : run->measured.spans) {
    CHECK(span.step < 2);
    least = std::min(least, span.start_us);
  }
  CHECK(least == 0);
  CHECK_FALSE(measured_timeline(program, Recorded{}, 3));
}

TEST_CASE("of a step that is too long to record the simulation shows as much as the recording", "[unit]") {
  const Program program = lowered("1f1b", 2, 64);
  Recorded recorded = fake_recording(program, uneven_costs(program), 1);
  std::erase_if(recorded.spans, [](const Span& span) { return span.start_us > kUptimeUs + 2000; });
  recorded.cut = true;
  const std::optional<RunTimeline> run = measured_timeline(program, recorded, 3);
  REQUIRE(run);
  CHECK(run->cut);
  CHECK(run->simulated.spans.size() < 30);
  CHECK(contains(html_page(*run, {}), "the recording reached its limit"));
}

TEST_CASE("a timeline reads back from the file that it was written to", "[unit]") {
  const RunTimeline run = small_run();
  const std::string text = to_json(run);
  const RunTimeline read = timeline_from_json(text, "t.json");
  CHECK(to_json(read) == text);
  CHECK(same_spans(run.measured, read.measured, 0.2));
  CHECK(read.memory.size() == run.memory.size());
  CHECK(stages_of_worker(read, 2) == stages_of_worker(run, 2));
  check_golden("timeline_1f1b_2x2.json", to_json(small_run(2, 2, 1)));
}

TEST_CASE("a timeline of format 1, which said tie for what is shared, is read as it was meant", "[unit]") {
  const Program program = lower(make_schedule("1f1b", {3, 1, 2}), rich_topology(3), {Mode::train, true});
  Costs costs = uneven_costs(program);
  costs.shared_bytes = {10};
  costs.links.same_host.bytes_per_us = 1;
  RunTimeline run = simulated_timeline(program, costs, 1);
  Instruction sum = of_kind(InstructionKind::shared_sum);
  sum.item = 0;
  run.simulated.spans.push_back({WorkerId(2), sum, 0, 1600, 1610});
  const std::string now = to_json(timeline_from_json(to_json(run), "now.json"));
  for (const char* word : {"\"item\":0", "\"shared\"", "\"shared_sum\""}) REQUIRE(contains(now, word));
  std::string old = now;
  for (const auto& [word, before] : {std::pair("\"format\":2", "\"format\":1"),
                                     {"\"item\":", "\"tie\":"},
                                     {"\"shared\"", "\"tie\""},
                                     {"\"shared_sum\"", "\"tie_sum\""}})
    for (std::size_t at; (at = old.find(word)) != std::string::npos;) old.replace(at, std::string(word).size(), before);
  REQUIRE(!contains(old, "shared"));
  CHECK(to_json(timeline_from_json(old, "old.json")) == now);
}

TEST_CASE("what is no timeline is refused by name", "[unit]") {
  for (const char* text : {"", "{", "[]", "{}", R"({"format":1,"name":3})", R"({"format":2,"name":3})"}) {
    const std::string message = error_of<UserError>([&] { timeline_from_json(text, "t.json"); });
    CHECK(contains(message, "t.json: not a timeline"));
  }
  CHECK(contains(error_of<UserError>([&] { timeline_from_json(R"({"format":9})", "t.json"); }),
                 "t.json: timeline format 9"));
  std::string broken = to_json(small_run(2, 2, 1));
  broken.replace(broken.find("\"edges\":["), 9, "\"edges\":[],\"e\":[");
  CHECK(contains(error_of<UserError>([&] { timeline_from_json(broken, "t.json"); }), "an edge that it lacks"));
}
