// SPDX-License-Identifier: Apache-2.0
//
// From a timeline to a trace and to a page.
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "runtime/observe/page.hpp"
#include "runtime/observe/run_report.hpp"
#include "runtime/observe/trace.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/unit/seeing_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Json = nlohmann::json;

}  // namespace

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
  metrics.tflop_per_s = {0.25, 1.5, 1.25};
  metrics.product_shares = {0.125, 0.75, 0.625};
  metrics.peak_bytes = {1048576, 2097152, 1048576, 1048576};
  RunTimeline run = small_run();
  run.planned_bytes = {3145728, 2097152, 1048576, 1048576};
  run.limit_bytes = {4194304, 4194304, 4194304, 4194304};
  const std::string page = html_page(run, metrics);
  for (const char* part : {"<b>Measured</b>", "<th scope=\"row\">stage 3", "planned 3 MiB, limit 4 MiB",
                           "<b>Simulated</b>", "<th scope=\"row\">worker 3", "2 MiB", "<h2>Loss</h2>", "<b>Memory</b>",
                           "small &lt;run&gt; &amp; &quot;friends&quot;", "step 4", "0 % longer", "1.38 TFLOP/s",
                           "68.8 % of what matrix products reach there"}) {
    INFO(part);
    CHECK(contains(page, part));
  }
  CHECK_FALSE(contains(page, "<!--"));
  CHECK_FALSE(contains(page, "small <run>"));
  metrics.tflop_per_s = metrics.product_shares = {std::nan(""), std::nan(""), std::nan("")};
  CHECK_FALSE(contains(html_page(run, metrics), "FLOP/s"));
  const std::regex outside("https?:|//[a-z]|src=|href=|url\\(|@import|<link|<iframe|fetch\\(|XMLHttpRequest");
  std::smatch found;
  const bool loads = std::regex_search(page, found, outside);
  INFO((loads ? found.str() : std::string()));
  CHECK_FALSE(loads);
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t start = page.find(open) + open.size();
  CHECK(Json::parse(page.substr(start, page.find("</script>", start) - start)).at("measured").size() == 4);
}

TEST_CASE("a page draws what evaluations measured: curves over steps, a confusion matrix, a ROC curve", "[unit]") {
  RunMetrics metrics = metrics_from_lines(
      R"({"eval":{"step":10,"eval_loss":1.5,"metrics":{"accuracy":0.5,"roc_auc":"nan","confusion_matrix":0.5}}})"
      "\n"
      R"({"eval":{"step":10,"eval_loss":9,"set":"hard","metrics":{"accuracy":0.125}}})"
      "\n"
      R"({"eval":{"step":20,"eval_loss":1.0,"metrics":{"accuracy":0.75,"roc_auc":0.875,"confusion_matrix":0.75},)"
      R"("pictures":{"confusion_matrix":[30,10,20,60],"roc_auc":[0,0,0.25,0.75,1,1]}}})"
      "\n",
      "m.jsonl");
  CHECK(metrics.metrics["accuracy"] == std::vector<std::pair<std::int64_t, double>>{{10, 0.5}, {20, 0.75}});
  const std::string page = html_page(small_run(), metrics);
  for (const char* part :
       {"<h2>Evaluation</h2>", "<figcaption>accuracy 0.7500</figcaption>", "d=\"M0.0 120.0L300.0 0.0\"",
        "<figcaption>roc_auc 0.8750</figcaption>", "<td style=\"--share:75%\" class=\"dark\">30</td>",
        "<td style=\"--share:25%\">10</td>", "ROC: hits by false alarms", "d=\"M0.0 120.0L75.0 30.0L300.0 0.0\""}) {
    INFO(part);
    CHECK(contains(page, part));
  }
  CHECK_FALSE(contains(page, "confusion_matrix 0.75"));
  CHECK_FALSE(contains(page, "0.125"));
  CHECK_FALSE(contains(html_page(small_run(), {}), "<h2>Evaluation</h2>"));
  metrics.pictures = {{"confusion_matrix", std::vector<double>(100 * 100, 1)}};  // too large to be read
  CHECK_FALSE(contains(html_page(small_run(), metrics), "class=\"matrix\""));
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
  const TemporaryFolder folder;
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
