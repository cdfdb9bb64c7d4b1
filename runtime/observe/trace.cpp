// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/trace.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

enum Pid { kMeasured = 1, kSimulated = 2 };

/// Perfetto cuts times down to nanoseconds and drops a slice that begins before its neighbour has ended.
constexpr double kGapUs = 0.002;

/// Rounded to a nanosecond.
double to_ns(double us) {
  return std::round(us * 1000) / 1000;
}

/// Names of chrome://tracing's palette; Perfetto chooses by name of the event, which begins with the letter.
const char* colour_of(const Instruction& what) {
  if (what.kind == InstructionKind::update) return "rail_response";
  if (what.kind != InstructionKind::compute) return is_work(what) ? "generic_work" : "grey";
  switch (what.action.op) {
    case Op::forward: return "thread_state_runnable";
    case Op::backward: return "thread_state_iowait";
    case Op::input_grad: return "rail_animation";
    case Op::weight_grad: return "thread_state_running";
  }
  return "grey";
}

const char* category_of(const Instruction& what) {
  if (what.kind != InstructionKind::compute) return is_work(what) ? "work" : "wait";
  switch (what.action.op) {
    case Op::forward: return "forward";
    case Op::backward: return "backward";
    case Op::input_grad: return "input_grad";
    case Op::weight_grad: return "weight_grad";
  }
  return "work";
}

/// "F3"; "1F3" when the worker has several stages.
std::string name_of(const RunTimeline& timeline, const Span& span) {
  if (span.what.kind != InstructionKind::compute) return describe(timeline.program, span.what);
  const std::vector<WorkerId>& rows = timeline.program.wiring.row_of_stage;
  const std::string text = to_text(span.what.action);
  return std::count(rows.begin(), rows.end(), span.worker) > 1 ? text
                                                               : text.substr(text.find(letter(span.what.action.op)));
}

class Trace {
 public:
  explicit Trace(const RunTimeline& timeline) : timeline_(timeline) {}

  std::string run() {
    if (timeline_.ran()) add(timeline_.measured, kMeasured, "measured");
    add(timeline_.simulated, kSimulated, "simulated");
    for (const MemorySample& sample : timeline_.memory)
      events_.push_back({{"ph", "C"},
                         {"name", concat("tensor bytes, worker ", sample.worker)},
                         {"pid", static_cast<int>(kMeasured)},
                         {"ts", to_ns(sample.at_us)},
                         {"args", {{"bytes", sample.bytes}}}});
    std::stable_sort(events_.begin(), events_.end(),
                     [](const Json& a, const Json& b) { return a.at("ts").get<double>() < b.at("ts").get<double>(); });
    Json all = std::move(metadata_);
    for (Json& event : events_) all.push_back(std::move(event));
    const Json document = {{"displayTimeUnit", "ms"},
                           {"otherData", {{"name", timeline_.name}, {"program", timeline_.program.name}}},
                           {"traceEvents", std::move(all)}};
    return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";  // names may be any bytes
  }

 private:
  /// Unique over both processes, and never 0: Perfetto takes that for the idle thread of a kernel.
  int thread(int pid, int worker) const { return (pid - kMeasured) * timeline_.workers() + worker + 1; }

  void describe_thread(int pid, int worker, const char* what, Json args) {
    metadata_.push_back(
        {{"ph", "M"}, {"name", what}, {"pid", pid}, {"tid", thread(pid, worker)}, {"args", std::move(args)}});
  }

  void add(const Timeline& timeline, int pid, const std::string& process) {
    metadata_.push_back({{"ph", "M"}, {"name", "process_name"}, {"pid", pid}, {"args", {{"name", process}}}});
    metadata_.push_back({{"ph", "M"}, {"name", "process_sort_index"}, {"pid", pid}, {"args", {{"sort_index", pid}}}});
    for (int worker = 0; worker < timeline.workers; ++worker) {
      describe_thread(pid, worker, "thread_name",
                      {{"name", concat(name_of_row(timeline_, worker), " (", place_of_worker(timeline_, worker), "), ",
                                       stages_of_worker(timeline_, worker))}});
      describe_thread(pid, worker, "thread_sort_index", {{"sort_index", worker}});
    }
    for (const Span& span : timeline.spans) add(span, pid);
    for (const Arrow& arrow : arrows_of(timeline, timeline_.program))
      add(timeline.spans[arrow.from], timeline.spans[arrow.to], pid);
  }

  void add(const Span& span, int pid) {
    Json args = {{"step", timeline_.first_step + span.step}};
    if (span.what.kind == InstructionKind::compute) {
      const Action& action = span.what.action;
      args["stage"] = action.stage.value();
      args["micro_batch"] = action.micro_batch;
      if (!timeline_.layers.empty()) args["layers"] = timeline_.layers[static_cast<std::size_t>(action.stage.value())];
    }
    events_.push_back({{"ph", "X"},
                       {"name", name_of(timeline_, span)},
                       {"cat", category_of(span.what)},
                       {"pid", pid},
                       {"tid", thread(pid, span.worker.value())},
                       {"ts", to_ns(span.start_us)},
                       {"dur", to_ns(std::max(0.0, to_ns(span.end_us) - to_ns(span.start_us) - kGapUs))},
                       {"cname", colour_of(span.what)},
                       {"args", std::move(args)}});
  }

  /// A flow event belongs to the slice around its time.
  void add(const Span& from, const Span& to, int pid) {
    const std::string name = from.what.action.op == Op::forward ? "value" : "gradient";
    const int id = ++flows_;
    constexpr double kInside = 0.01;
    const double leaves_us = from.end_us - kInside * (from.end_us - from.start_us);
    const double arrives_us = to.start_us + kInside * (to.end_us - to.start_us);
    Json start = {{"ph", "s"},
                  {"name", name},
                  {"cat", "message"},
                  {"id", id},
                  {"pid", pid},
                  {"tid", thread(pid, from.worker.value())},
                  {"ts", to_ns(leaves_us)}};
    Json end = {{"ph", "f"},
                {"bp", "e"},
                {"name", name},
                {"cat", "message"},
                {"id", id},
                {"pid", pid},
                {"tid", thread(pid, to.worker.value())},
                {"ts", to_ns(std::max(leaves_us, arrives_us))}};
    events_.push_back(std::move(start));
    events_.push_back(std::move(end));
  }

  const RunTimeline& timeline_;
  Json metadata_ = Json::array();
  std::vector<Json> events_;
  int flows_ = 0;
};

}  // namespace

std::vector<Arrow> arrows_of(const Timeline& timeline, const Program& program) {
  const StageGraph graph = stage_graph(program.topology);
  std::map<std::pair<int, Action>, std::size_t> ran;
  for (std::size_t i = 0; i < timeline.spans.size(); ++i) {
    const Span& span = timeline.spans[i];
    if (span.what.kind != InstructionKind::compute) continue;
    Action action = span.what.action;
    ran[{span.step, action}] = i;
    if (action.op != Op::backward) continue;
    action.op = Op::input_grad;  // B stands for I
    ran[{span.step, action}] = i;
  }
  std::vector<Arrow> arrows;
  for (std::size_t to = 0; to < timeline.spans.size(); ++to) {
    const Span& span = timeline.spans[to];
    if (span.what.kind != InstructionKind::compute) continue;
    for (const Action& needed : required_before(span.what.action, graph)) {
      const auto found = ran.find({span.step, needed});
      if (found != ran.end() && timeline.spans[found->second].worker != span.worker)
        arrows.push_back({found->second, to});
    }
  }
  return arrows;
}

std::string chrome_trace(const RunTimeline& timeline) {
  return Trace(timeline).run();
}

}  // namespace lockstep
