// SPDX-License-Identifier: Apache-2.0
//
// From a recording to a timeline, a trace and a page.
#include <unistd.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "runtime/observe/clocks.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/observe/run_report.hpp"
#include "runtime/observe/trace.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Json = nlohmann::json;

constexpr double kUptimeUs = 5e9;  // a clock that has been running for long

Instruction compute_of(const std::string& text) {
  Instruction what;
  what.action = parse_action(text);
  return what;
}

Instruction of_kind(InstructionKind kind) {
  Instruction what;
  what.kind = kind;
  return what;
}

Costs uneven_costs(const Program& program) {
  Costs costs = equal_costs(program.topology.stages, 0, 0, 0);
  for (std::size_t s = 0; s < costs.stages.size(); ++s) {
    costs.stages[s].forward_us = 100.0 + 20.0 * static_cast<double>(s);
    costs.stages[s].input_grad_us = 210.0 + 30.0 * static_cast<double>(s);
  }
  costs.update_us.assign(program.rows.size(), 50);
  return costs;
}

/// What workers that take exactly these times would have recorded.
Recorded fake_recording(const Program& program, const Costs& costs, int steps) {
  Recorded recorded;
  recorded.spans = simulate(program, costs, steps).timeline.spans;
  for (Span& span : recorded.spans) {
    span.start_us += kUptimeUs;
    span.end_us += kUptimeUs;
    if (span.what.kind == InstructionKind::compute) recorded.memory.push_back({span.worker, span.end_us, 4096});
  }
  return recorded;
}

RunTimeline small_run(int workers = 4, int micro_batches = 6, int steps = 2) {
  const Program program = lowered("1f1b", workers, micro_batches);
  std::optional<RunTimeline> run =
      measured_timeline(program, fake_recording(program, uneven_costs(program), steps), /*first_step=*/3);
  REQUIRE(run);
  run->name = "small <run> & \"friends\"";
  for (int s = 0; s < workers; ++s) run->layers.push_back(concat("layer.", s, " .. </script>"));
  return *run;
}

bool same_spans(const Timeline& a, const Timeline& b, double tolerance_us) {
  if (a.spans.size() != b.spans.size()) return false;
  for (std::size_t i = 0; i < a.spans.size(); ++i) {
    const Span &x = a.spans[i], &y = b.spans[i];
    if (x.worker != y.worker || x.step != y.step || x.what != y.what) return false;
    if (std::abs(x.start_us - y.start_us) > tolerance_us || std::abs(x.end_us - y.end_us) > tolerance_us) return false;
  }
  return true;
}

class Folder {
 public:
  Folder() { std::filesystem::create_directories(path_); }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(file(name)) << text; }
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(file(name)).rdbuf();
    return text.str();
  }

 private:
  std::string path_ = (std::filesystem::temp_directory_path() / concat("lockstep_seeing_", getpid())).string();
};

}  // namespace

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

TEST_CASE("what is no timeline is refused by name", "[unit]") {
  for (const char* text : {"", "{", "[]", "{}", R"({"format":1,"name":3})"}) {
    const std::string message = error_of<UserError>([&] { timeline_from_json(text, "t.json"); });
    CHECK(contains(message, "t.json: not a timeline"));
  }
  CHECK(contains(error_of<UserError>([&] { timeline_from_json(R"({"format":9})", "t.json"); }),
                 "t.json: timeline format 9"));
  std::string broken = to_json(small_run(2, 2, 1));
  broken.replace(broken.find("\"edges\":["), 9, "\"edges\":[],\"e\":[");
  CHECK(contains(error_of<UserError>([&] { timeline_from_json(broken, "t.json"); }), "an edge that it lacks"));
}

TEST_CASE("there is an arrow for every message of values and gradients", "[unit]") {
  for (const int workers : {1, 2, 4}) {
    const Program program = lowered("1f1b", workers, 6);
    const Simulation simulation = simulate(program, equal_costs(workers, 1, 1, 1));
    const std::vector<Arrow> arrows = arrows_of(simulation.timeline, program);
    CHECK(static_cast<long>(arrows.size()) == simulation.messages);
    for (const Arrow& arrow : arrows) {
      CHECK(simulation.timeline.spans[arrow.from].end_us <= simulation.timeline.spans[arrow.to].start_us);
      CHECK(simulation.timeline.spans[arrow.from].worker != simulation.timeline.spans[arrow.to].worker);
    }
  }
}

TEST_CASE("a trace has well-formed slices without overlap, paired arrows and ascending times", "[unit]") {
  const RunTimeline run = small_run();
  const Json trace = Json::parse(chrome_trace(run));
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> slices;
  std::map<int, std::vector<Json>> flows;
  std::map<std::string, int> phases;
  double last = -1;
  for (const Json& event : trace.at("traceEvents")) {
    const std::string phase = event.at("ph");
    ++phases[phase];
    CHECK(event.at("name").is_string());
    CHECK(event.at("pid").is_number_integer());
    if (phase == "M") continue;
    const double ts = event.at("ts");
    CHECK(ts >= last);
    last = ts;
    if (phase == "X") {
      CHECK(event.at("dur").get<double>() >= 0);
      CHECK(event.at("args").at("step").get<int>() >= 3);
      slices[{event.at("pid"), event.at("tid")}].emplace_back(ts, ts + event.at("dur").get<double>());
    } else if (phase == "s" || phase == "f") {
      flows[event.at("id").get<int>()].push_back(event);
    }
  }
  CHECK(phases["X"] == static_cast<int>(run.measured.spans.size() + run.simulated.spans.size()));
  CHECK(phases["C"] == 4 * 6 * 2 * 2);
  CHECK(slices.size() == 8);
  for (const auto& [thread, list] : slices)
    for (std::size_t i = 1; i < list.size(); ++i) CHECK(list[i].first >= list[i - 1].second - 1e-6);
  CHECK(flows.size() == 2 * 2 * (3 * 6 * 2 + 6));  // timelines, steps, neighbours, and targets to the last stage
  for (const auto& [id, pair] : flows) {
    REQUIRE(pair.size() == 2);
    CHECK(pair[0].at("ph") == "s");
    CHECK(pair[1].at("ph") == "f");
    for (const Json& end : pair) {
      const double ts = end.at("ts");
      const auto& list = slices.at({end.at("pid"), end.at("tid")});
      CHECK(std::any_of(list.begin(), list.end(),
                        [&](const auto& slice) { return slice.first <= ts && ts <= slice.second; }));
    }
  }
}

TEST_CASE("the trace of a small run is this one", "[unit]") {
  RunTimeline run = small_run(2, 1, 1);
  run.name = "tiny";
  run.layers = {"embed .. h.0", "h.1 .. head"};
  check_golden("trace_1f1b_2x1.json", Json::parse(chrome_trace(run)).dump(1) + "\n");
}

TEST_CASE("a page holds both timelines, the workers and its data, and loads nothing", "[unit]") {
  RunMetrics metrics;
  metrics.losses = {{1, 3.5}, {2, std::nan("")}, {3, 2.5}};
  metrics.step_ms = {9, 5, 6};
  metrics.bubbles = {0.5, 0.25, 0.25};
  metrics.peak_bytes = {1048576, 2097152, 1048576, 1048576};
  RunTimeline run = small_run();
  run.planned_bytes = {3145728, 2097152, 1048576, 1048576};
  run.limit_bytes = {4194304, 4194304, 4194304, 4194304};
  const std::string page = html_page(run, metrics);
  for (const char* part : {"<b>Measured</b>", "<th scope=\"row\">stage 3", "planned 3 MiB, limit 4 MiB",
                           "<b>Simulated</b>", "<th scope=\"row\">worker 3", "2 MiB", "<h2>Loss</h2>", "<b>Memory</b>",
                           "small &lt;run&gt; &amp; &quot;friends&quot;", "step 4", "0 % longer"}) {
    INFO(part);
    CHECK(contains(page, part));
  }
  CHECK_FALSE(contains(page, "<!--"));
  CHECK_FALSE(contains(page, "small <run>"));
  const std::regex outside("https?:|//[a-z]|src=|href=|url\\(|@import|<link|<iframe|fetch\\(|XMLHttpRequest");
  std::smatch found;
  const bool loads = std::regex_search(page, found, outside);
  INFO((loads ? found.str() : std::string()));
  CHECK_FALSE(loads);
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t start = page.find(open) + open.size();
  CHECK(Json::parse(page.substr(start, page.find("</script>", start) - start)).at("measured").size() == 4);
}

TEST_CASE("a page of a plan shows what each worker will hold", "[unit]") {
  const Program program = lowered("1f1b", 3, 4);
  RunTimeline plan = simulated_timeline(program, uneven_costs(program), 1);
  CHECK_FALSE(contains(html_page(plan, {}), "tensor bytes</th>"));
  plan.planned_bytes = {1048576, 3145728, 2097152};
  plan.limit_bytes = {4194304, 8388608, 0};
  const std::string page = html_page(plan, {});
  for (const char* part :
       {"Planned peak tensor bytes", "<dd>3 MiB</dd><dd class=\"note\">worker 1, planned, limit 8 MiB", "2 MiB<span",
        "<small>limit 4 MiB</small>"}) {
    INFO(part);
    CHECK(contains(page, part));
  }
  CHECK_FALSE(contains(page, "<details class=\"table\">"));
}

TEST_CASE("long tables of a page are closed, and say what they hold", "[unit]") {
  const Program program = lowered("1f1b", 20, 4);
  RunTimeline plan = simulated_timeline(program, uneven_costs(program), 1);
  plan.planned_bytes.assign(20, 1048576);
  plan.planned_bytes[7] = 2097152;
  const std::string page = html_page(plan, {});
  CHECK(contains(page, "<summary>20 workers, peak tensor bytes 1 MiB to 2 MiB</summary><table>"));
  CHECK(contains(page, "<summary>20 stages</summary><table>"));
}

TEST_CASE("a page of 64 workers and hundreds of micro-batches stays small", "[unit]") {
  const Program program = lowered("1f1b", 64, 256);
  const std::string page = html_page(simulated_timeline(program, equal_costs(64, 1000, 1000, 1000), 1), {});
  constexpr std::size_t kMost = 4u << 20;
  CHECK(page.size() < kMost);
  CHECK_FALSE(contains(page, "Measured"));
}

TEST_CASE("metrics are read with numbers that are not finite, evaluations and an unfinished last line", "[unit]") {
  const RunMetrics metrics = metrics_from_lines(
      R"({"step":1,"loss":"nan","step_ms":2.5,"bubble":0.5,"workers":[{"peak_bytes":7},{"peak_bytes":8}]})"
      "\n"
      R"({"eval":{"step":1,"eval_loss":1.5,"samples":3}})"
      "\n"
      R"({"summary":{"steps":1}})"
      "\n"
      R"({"step":2,"lo)",
      "m.jsonl");
  REQUIRE(metrics.losses.size() == 1);
  CHECK(std::isnan(metrics.losses[0].second));
  CHECK(metrics.eval_losses == std::vector<std::pair<std::int64_t, double>>{{1, 1.5}});
  CHECK(metrics.peak_bytes == std::vector<double>{7, 8});
  CHECK(contains(error_of<UserError>([] { metrics_from_lines("{}\nno\n", "m.jsonl"); }), "m.jsonl:2: not a line"));
}

TEST_CASE("lockstep report says what a folder lacks, and writes nothing then", "[unit]") {
  const Folder folder;
  const auto report = [&](const std::string& path, const std::string& output = "") {
    std::ostringstream out;
    return error_of<UserError>([&] { report_command({path, output, ""}, out); });
  };
  CHECK(contains(report(folder.file("nowhere")), "there is no run folder"));
  CHECK(contains(report(folder.path()), "holds no run"));
  folder.write("config.yaml", "name: x\n");
  CHECK(contains(report(folder.path()), "left no timeline.json"));
  folder.write("timeline.json", to_json(small_run()));
  CHECK(contains(report(folder.path(), folder.file("no/page.html")), "-o: cannot write"));
  CHECK_FALSE(std::filesystem::exists(folder.file("report.html")));
  std::ostringstream out;
  CHECK(report_command({folder.path(), "", folder.file("trace.json")}, out) == 0);
  CHECK(contains(out.str(), folder.file("report.html")));
  CHECK(Json::parse(folder.read("trace.json")).contains("traceEvents"));
  CHECK(report_command({folder.file("timeline.json"), folder.file("other.html"), ""}, out) == 0);
  CHECK(folder.read("other.html") == folder.read("report.html"));
}
