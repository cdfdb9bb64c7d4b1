// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/run_timeline.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <tuple>

#include "runtime/base/error.hpp"
#include "runtime/base/median.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 2, kOldestFormat = 1;

RunTimeline described(const Program& program) {
  RunTimeline result;
  result.name = program.name;
  result.program = program;
  result.rank_of_worker.assign(program.rows.size(), 0);
  for (std::vector<Instruction>& row : result.program.rows) {
    result.sent.push_back(std::count_if(row.begin(), row.end(), [&](const Instruction& instruction) {
      return instruction.kind == InstructionKind::send &&
             program.edges[static_cast<std::size_t>(instruction.edge.value())].from_stage.valid();
    }));
    row.clear();
  }
  return result;
}

bool earlier(const Span& a, const Span& b) {
  return std::tie(a.worker, a.start_us, a.end_us) < std::tie(b.worker, b.start_us, b.end_us);
}

/// The number of steps that somebody has recorded.
int last_step(const std::vector<Span>& spans) {
  int steps = 0;
  for (const Span& span : spans) steps = std::max(steps, span.step + 1);
  return steps;
}

/// The number of steps that every worker has recorded.
int whole_steps(const std::vector<Span>& spans, int workers) {
  std::vector<int> steps(static_cast<std::size_t>(workers), 0);
  for (const Span& span : spans) {
    int& known = steps[static_cast<std::size_t>(span.worker.value())];
    known = std::max(known, span.step + 1);
  }
  return steps.empty() ? 0 : *std::min_element(steps.begin(), steps.end());
}

}  // namespace

RunTimeline simulated_timeline(const Program& program, const Costs& costs, int steps) {
  RunTimeline result = described(program);
  result.steps = steps;
  result.simulated = simulate(program, costs, steps).timeline;
  std::sort(result.simulated.spans.begin(), result.simulated.spans.end(), earlier);
  return result;
}

std::optional<RunTimeline> measured_timeline(const Program& program, Recorded recorded, std::int64_t first_step) {
  std::vector<Span>& spans = recorded.spans;
  const bool has_servers = program.topology.servers > 0;
  const int steps = has_servers ? last_step(spans) : whole_steps(spans, program.workers());
  std::erase_if(spans, [&](const Span& span) { return span.step >= steps; });
  if (spans.empty()) return std::nullopt;
  std::sort(spans.begin(), spans.end(), earlier);
  // A worker may have waited for the first step since long before it began.
  double start_us = std::numeric_limits<double>::infinity(), end_us = 0;
  for (const Span& span : spans) {
    if (is_work(span.what)) start_us = std::min(start_us, span.start_us);
    end_us = std::max(end_us, span.end_us);
  }
  for (Span& span : spans) {
    span.start_us = std::max(0.0, span.start_us - start_us);
    span.end_us -= start_us;
  }
  std::erase_if(spans, [](const Span& span) { return span.end_us <= 0; });
  Timeline measured{program.name, program.workers(), std::move(spans)};
  RunTimeline result = simulated_timeline(program, costs_of(measured, program), steps);
  if (has_servers) result.simulated.spans.clear();
  result.measured = std::move(measured);
  result.first_step = first_step;
  result.cut = recorded.cut;
  if (recorded.cut && steps == 1)  // perhaps not even one step is whole: as much of the simulation as of the run
    std::erase_if(result.simulated.spans, [&](const Span& span) { return span.start_us >= end_us - start_us; });
  for (MemorySample sample : recorded.memory) {
    sample.at_us -= start_us;
    if (sample.at_us <= end_us - start_us) result.memory.push_back(sample);
  }
  return result;
}

Costs costs_of(const Timeline& timeline, const Program& program) {
  std::map<std::pair<StageId, Op>, std::vector<double>> computes;
  std::map<WorkerId, std::vector<double>> updates;
  std::map<WorkerId, std::map<int, std::vector<double>>> reductions;  // by bucket
  for (const Span& span : timeline.spans) {
    const double us = span.end_us - span.start_us;
    if (span.what.kind == InstructionKind::compute)
      computes[{span.what.action.stage, span.what.action.op}].push_back(us);
    if (span.what.kind == InstructionKind::update) updates[span.worker].push_back(us);
    if (span.what.kind == InstructionKind::reduce) reductions[span.worker][span.what.item].push_back(us);
  }
  Costs costs = equal_costs(program.topology.stages, 0, 0, 0);
  for (int s = 0; s < program.topology.stages; ++s) {
    const auto cost = [&](Op op, double otherwise = 0) {
      const std::vector<double>& us = computes[{StageId(s), op}];
      return us.empty() ? otherwise : median(us);
    };
    StageCost& stage = costs.stages[static_cast<std::size_t>(s)];
    stage.forward_us = cost(Op::forward);
    stage.weight_grad_us = cost(Op::weight_grad);
    stage.input_grad_us = cost(Op::input_grad, std::max(0.0, cost(Op::backward) - stage.weight_grad_us));
  }
  for (int worker = 0; worker < program.workers(); ++worker) {
    const std::vector<double>& us = updates[WorkerId(worker)];
    costs.update_us.push_back(us.empty() ? 0 : median(us));
    double& reduce_us = costs.reduce_us.emplace_back(0);
    for (const auto& [item, of_bucket] : reductions[WorkerId(worker)]) reduce_us += median(of_bucket);
  }
  return costs;
}

Shares shares_of(const Timeline& timeline, int steps) {
  Shares result;
  result.workers.resize(static_cast<std::size_t>(timeline.workers));
  double start_us = 0, end_us = 0, work_us = 0;
  for (const Span& span : timeline.spans) end_us = std::max(end_us, span.end_us);
  if (end_us <= start_us || steps < 1) return result;
  for (const Span& span : timeline.spans) {
    WorkerShare& share = result.workers[static_cast<std::size_t>(span.worker.value())];
    const double us = (span.end_us - span.start_us) / steps;
    double& part = span.what.kind == InstructionKind::compute ? share.compute_us
                   : is_work(span.what)                       ? share.other_us
                                                              : share.wait_us;
    part += us;
    if (is_work(span.what)) work_us += us;
  }
  result.step_us = (end_us - start_us) / steps;
  result.bubble = std::max(0.0, 1 - work_us / (result.step_us * timeline.workers));
  for (WorkerShare& share : result.workers)
    share.rest_us = std::max(0.0, result.step_us - share.compute_us - share.other_us - share.wait_us);
  return result;
}

std::string name_of_row(const RunTimeline& timeline, int row) {
  return timeline.server_of(row) >= 0 ? concat("server ", timeline.server_of(row)) : concat("worker ", row);
}

std::string stages_of_worker(const RunTimeline& timeline, int worker) {
  if (timeline.server_of(worker) >= 0) return concat("row ", worker);
  std::vector<int> stages;
  for (std::size_t s = 0; s < timeline.program.wiring.row_of_stage.size(); ++s)
    if (timeline.program.wiring.row_of_stage[s].value() == worker) stages.push_back(static_cast<int>(s));
  const Topology& topology = timeline.program.topology;
  const std::string replica =
      topology.replicas.count == 1 ? "" : concat("replica ", worker / timeline.workers_of_replica(), ", ");
  std::string text = concat(replica, stages.size() == 1 ? "stage " : "stages ", join(stages));
  if (stages.size() == 1 && !timeline.layers.empty())
    text += concat(": ", timeline.layers[static_cast<std::size_t>(stages.front())]);
  return text;
}

// ---- JSON ----

namespace {

double rounded(double us) {
  constexpr double kPerUs = 10;
  return std::round(us * kPerUs) / kPerUs;
}

Json spans_to_json(const Timeline& timeline) {
  Json workers = Json::array();
  for (int worker = 0; worker < timeline.workers; ++worker) workers.push_back(Json::array());
  for (const Span& span : timeline.spans) {
    const Instruction& what = span.what;
    Json entry = {what.kind == InstructionKind::compute ? to_text(what.action) : to_string(what.kind), span.step,
                  rounded(span.start_us), rounded(rounded(span.end_us) - rounded(span.start_us))};
    if (is_message(what.kind)) {
      entry.push_back(what.edge.value());
      entry.push_back(what.action.stage.valid() ? what.action.micro_batch : -1);
    }
    if (what.item >= 0) entry.push_back(what.item);
    workers[static_cast<std::size_t>(span.worker.value())].push_back(std::move(entry));
  }
  return workers;
}

/// Anything else is the text of an action. tie_sum: format 1.
InstructionKind kind_of(const std::string& text) {
  return text == "tie_sum" ? InstructionKind::shared_sum
                           : find_enum<InstructionKind>(text).value_or(InstructionKind::compute);
}

Timeline spans_from_json(const Json& json, const Program& program) {
  Timeline timeline{program.name, program.workers(), {}};
  for (std::size_t worker = 0; worker < json.size(); ++worker)
    for (const Json& entry : json.at(worker)) {
      Span span{WorkerId(static_cast<int>(worker)), {}, entry.at(1), entry.at(2), 0};
      span.end_us = span.start_us + entry.at(3).get<double>();
      const std::string what = entry.at(0);
      span.what.kind = kind_of(what);
      if (span.what.kind == InstructionKind::compute) span.what.action = parse_action(what);
      if (is_message(span.what.kind)) {
        span.what.edge = EdgeId(entry.at(4).get<int>());
        const Edge& edge = program.edges.at(static_cast<std::size_t>(span.what.edge.value()));
        span.what.action.stage = edge.from_stage;
        span.what.action.op = edge.kind == EdgeKind::gradient ? Op::input_grad : Op::forward;
        span.what.action.micro_batch = std::max(0, entry.at(5).get<int>());
      }
      if (span.what.kind == InstructionKind::shared_sum || span.what.kind == InstructionKind::reduce)
        span.what.item = entry.at(4);
      timeline.spans.push_back(span);
    }
  return timeline;
}

Json edge_to_json(const Edge& edge) {
  Json json = {{"kind", to_string(edge.kind)}, {"from", edge.from.value()}, {"to", edge.to.value()}};
  if (edge.from_stage.valid()) {
    json["from_stage"] = edge.from_stage.value();
    json["to_stage"] = edge.to_stage.value();
  } else if (edge.item >= 0) {
    json["item"] = edge.item;
  }
  return json;
}

Edge edge_from_json(const Json& json) {
  Edge edge;
  const std::string kind = json.at("kind");
  edge.kind = kind == "tie" ? EdgeKind::shared : find_enum<EdgeKind>(kind).value_or(EdgeKind::value);  // tie: format 1
  edge.from = WorkerId(json.at("from").get<int>());
  edge.to = WorkerId(json.at("to").get<int>());
  edge.from_stage = StageId(json.value("from_stage", -1));
  edge.to_stage = StageId(json.value("to_stage", -1));
  edge.item = json.value("item", json.value("tie", -1));
  return edge;
}

Json stages_to_json(const RunTimeline& timeline) {
  const Topology& topology = timeline.program.topology;
  Json stages = Json::array();
  for (std::size_t s = 0; s < static_cast<std::size_t>(topology.stages); ++s)
    stages.push_back({{"worker", timeline.program.wiring.row_of_stage[s].value()},
                      {"layers", timeline.layers.empty() ? std::string() : timeline.layers[s]},
                      {"has_backward", static_cast<bool>(topology.has_backward[s])},
                      {"has_weight_grad", static_cast<bool>(topology.has_weight_grad[s])}});
  return stages;
}

void stages_from_json(const Json& json, RunTimeline& timeline) {
  Topology& topology = timeline.program.topology;
  topology.stages = static_cast<int>(json.size());
  for (const Json& stage : json) {
    timeline.program.wiring.row_of_stage.emplace_back(stage.at("worker").get<int>());
    timeline.layers.push_back(stage.at("layers"));
    topology.has_backward.push_back(stage.at("has_backward").get<bool>());
    topology.has_weight_grad.push_back(stage.at("has_weight_grad").get<bool>());
  }
  const auto named = [](const std::string& layers) { return !layers.empty(); };
  if (std::none_of(timeline.layers.begin(), timeline.layers.end(), named)) timeline.layers.clear();
}

RunTimeline from_json(const Json& json) {
  RunTimeline result;
  result.name = json.at("name");
  result.program.name = json.at("program");
  result.program.micro_batches = json.at("micro_batches");
  result.program.clip = json.at("clip");
  result.rank_of_worker = json.at("rank_of_worker").get<std::vector<int>>();
  result.device_of_worker = json.value("device_of_worker", result.device_of_worker);
  result.program.rows.resize(result.rank_of_worker.size());
  stages_from_json(json.at("stages"), result);
  result.program.topology.replicas.count = json.value("replicas", 1);
  result.program.topology.servers = json.value("servers", 0);
  for (const Json& flow : json.at("flows"))
    result.program.topology.flows.push_back(
        {StageId(flow.at(0).get<int>()), StageId(flow.at(1).get<int>()), flow.at(2)});
  for (const Json& edge : json.at("edges")) result.program.edges.push_back(edge_from_json(edge));
  result.sent = json.at("sent").get<std::vector<long>>();
  result.first_step = json.at("first_step");
  result.steps = json.at("steps");
  result.cut = json.at("cut");
  result.clock_error_us = json.at("clock_error_us");
  result.measured = spans_from_json(json.at("measured"), result.program);
  result.simulated = spans_from_json(json.at("simulated"), result.program);
  result.planned_bytes = json.value("planned_bytes", result.planned_bytes);
  result.limit_bytes = json.value("limit_bytes", result.limit_bytes);
  const Json& memory = json.at("memory");
  for (std::size_t worker = 0; worker < memory.size(); ++worker)
    for (const Json& sample : memory.at(worker))
      result.memory.push_back({WorkerId(static_cast<int>(worker)), sample.at(0), sample.at(1)});
  return result;
}

}  // namespace

std::string to_json(const RunTimeline& timeline) {
  const Program& program = timeline.program;
  Json flows = Json::array(), edges = Json::array(), memory = Json::array();
  for (const Flow& flow : program.topology.flows)
    flows.push_back({flow.from.value(), flow.to.value(), flow.differentiable});
  for (const Edge& edge : program.edges) edges.push_back(edge_to_json(edge));
  for (int worker = 0; worker < timeline.workers(); ++worker) memory.push_back(Json::array());
  for (const MemorySample& sample : timeline.memory)
    memory[static_cast<std::size_t>(sample.worker.value())].push_back({rounded(sample.at_us), sample.bytes});
  Json json = {{"format", kFormat},
               {"name", timeline.name},
               {"program", program.name},
               {"micro_batches", program.micro_batches},
               {"clip", program.clip},
               {"rank_of_worker", timeline.rank_of_worker},
               {"stages", stages_to_json(timeline)},
               {"flows", std::move(flows)},
               {"edges", std::move(edges)},
               {"sent", timeline.sent},
               {"first_step", timeline.first_step},
               {"steps", timeline.steps},
               {"cut", timeline.cut},
               {"clock_error_us", rounded(timeline.clock_error_us)},
               {"measured", spans_to_json(timeline.measured)},
               {"simulated", spans_to_json(timeline.simulated)},
               {"memory", std::move(memory)},
               {"planned_bytes", timeline.planned_bytes},
               {"limit_bytes", timeline.limit_bytes}};
  if (program.topology.replicas.count > 1) json["replicas"] = program.topology.replicas.count;
  if (timeline.servers() > 0) json["servers"] = timeline.servers();
  if (!timeline.device_of_worker.empty()) json["device_of_worker"] = timeline.device_of_worker;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";  // names may be any bytes
}

std::string place_of_worker(const RunTimeline& timeline, int worker) {
  const auto at = static_cast<std::size_t>(worker);
  const std::string device = at < timeline.device_of_worker.size() ? ", " + timeline.device_of_worker[at] : "";
  return concat("rank ", timeline.rank_of_worker[at], device);
}

RunTimeline timeline_from_json(const std::string& text, const std::string& file) {
  try {
    const Json json = Json::parse(text);
    const int format = json.at("format");
    if (format < kOldestFormat || format > kFormat)
      throw UserError(
          concat(file, ": timeline format ", format, ", this lockstep reads formats ", kOldestFormat, " to ", kFormat));
    return from_json(json);
  } catch (const Json::exception& error) {
    throw UserError(concat(file, ": not a timeline that lockstep train wrote: ", one_line(reason_of(error))));
  } catch (const std::out_of_range&) {
    throw UserError(concat(file, ": not a timeline that lockstep train wrote: a span names an edge that it lacks"));
  }
}

}  // namespace lockstep
