// SPDX-License-Identifier: Apache-2.0
#include "partitioner/plan_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iomanip>
#include <limits>

#include "runtime/base/check.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

constexpr int kFormat = 2;
constexpr double kUsPerMs = 1e3, kBytesPerMib = 1048576, kBytesPerUsPerGigabyte = 1e3;

/// Six digits: people read it.
std::string number(double value) {
  std::ostringstream out;
  out << std::setprecision(6) << value;
  return out.str();
}
std::string ms(double us) {
  return number(us / kUsPerMs);
}
std::string bytes(double value) {
  return concat(static_cast<std::int64_t>(std::ceil(value)));
}

/// Names of layers and models may be anything: in quotes they are themselves.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
  return result + "'";
}

std::string link_text(const LinkCost& link) {
  std::string text = concat("{latency_us: ", number(link.latency_us));
  if (std::isfinite(link.bytes_per_us))
    text += concat(", gigabytes_per_s: ", number(link.bytes_per_us / kBytesPerUsPerGigabyte));
  if (link.busy_us_per_byte > 0) text += concat(", busy_us_per_mib: ", number(link.busy_us_per_byte * kBytesPerMib));
  return text + "}";
}

std::vector<std::string> byte_list(const std::vector<double>& values) {
  std::vector<std::string> texts;
  for (const double value : values) texts.push_back(bytes(value));
  return texts;
}

/// Those of the other replicas are the same.
template <typename Value>
std::vector<Value> of_one(std::vector<Value> values, int replicas) {
  values.resize(values.size() / static_cast<std::size_t>(replicas));
  return values;
}

std::string pipeline_text(const PlanFile& plan) {
  const PlanChoice& choice = plan.choice;
  std::vector<int> placement = placement_of_one(choice, plan.replicas);
  if (placement.empty())
    for (int row = 0; row < static_cast<int>(plan.workers.size()); ++row) placement.push_back(row);
  const std::string replicas =
      concat("replicas: {count: ", plan.replicas,
             plan.replicas > 1 ? concat(", placement: ", to_string(placement_of_replicas(choice, plan.replicas)))
                               : std::string(),
             "}\n");
  return concat(
      "# The config's own keys; they take the place of those in the config. Edit them as you like: what `predicted`\n",
      "# says is then predicted again, from `profile`.\n", "pipeline:\n", "  stages: ", choice.layers_per_stage.size(),
      "\n",
      choice.virtual_stages > 0 ? concat("  virtual_stages: ", choice.virtual_stages, "  # stages per worker\n") : "",
      "  schedule: ", choice.schedule.starts_with("file:") ? quoted(choice.schedule) : choice.schedule, "\n",
      "  partition: [", join(choice.layers_per_stage), "]  # layers per stage\n", "  recompute: ", plan.recompute_text,
      "\n", "  placement: [", join(placement), "]  # worker of each row of the schedule\n", replicas);
}

std::string workers_text(const PlanFile& plan) {
  const bool devices = uses_devices(plan.workers);
  std::string text = concat("# The workers that it was made for: relative speed, limit of bytes, rank",
                            devices ? ", host and device.\n" : " and host.\n", "workers:\n");
  for (const PlannedWorker& worker : plan.workers) {
    const bool limited = std::isfinite(worker.limit_bytes);
    text += concat("  - {speed: ", number(worker.speed), ", limit: ",
                   limited ? exact_size_text(static_cast<std::int64_t>(worker.limit_bytes)) : std::string("none"),
                   ", rank: ", worker.place.rank, ", host: ", worker.place.host,
                   devices ? ", device: " + worker.place.device : std::string(),
                   worker.kind != kHostKind ? concat(", kind: ", quoted(worker.kind)) : std::string(), "}\n");
  }
  if (!plan.idle.empty())
    text += concat("# Workers that there were too, as they were numbered then: without them it is better.\nidle: [",
                   join(plan.idle), "]\n");
  return text;
}

std::string profile_text(const PlanFile& plan) {
  std::string text =
      "\n# What layers and links cost, as in a profile: from it an edited pipeline is predicted.\nprofile:\n";
  std::istringstream lines(plan.profile);
  for (std::string line; std::getline(lines, line);) text += "  " + line + "\n";
  return text;
}

std::string stages_text(const PlanPrediction& p) {
  std::string text =
      "  # Times are of one micro-batch. A stage that is run again takes recompute_ms more in its backward.\n  "
      "stages:\n";
  for (std::size_t s = 0; s < p.stages.size(); ++s) {
    const PredictedStage& stage = p.stages[s];
    const StageCost& cost = p.costs.stages[s];
    text += concat("    - {row: ", stage.row, ", layers: ", stage.layers, ", forward_ms: ", ms(cost.forward_us),
                   ", input_grad_ms: ", ms(cost.input_grad_us), ", weight_grad_ms: ", ms(cost.weight_grad_us),
                   ", recompute_ms: ", ms(cost.recompute_us), ", parameters: ", stage.parameters,
                   ", in_flight: ", stage.in_flight, ", state_bytes: ", bytes(stage.state_bytes), "}\n");
  }
  return text;
}

std::string predicted_text(const PlanFile& plan) {
  const PlanPrediction& p = *plan.predicted;
  std::string text = concat(
      "predicted:\n  of: ", quoted(plan.key), "\n  micro_batches: ", plan.micro_batches, "\n",
      "  step_ms: ", ms(p.step_us), "  # per step, when steps follow one another\n", "  alone_ms: ", ms(p.alone_us),
      "  # a step by itself\n", "  bubble: ", number(p.bubble), "  # idle share of a step by itself\n",
      "  bubble_steady: ", number(p.bubble_steady), "  # idle share when steps follow one another\n",
      p.with_all_us > 0 ? concat("  with_all_ms: ", ms(p.with_all_us), "  # per step, with the idle workers too\n")
                        : "",
      "  workers:  # by row of the schedule\n");
  for (std::size_t row = 0; row < p.compute_us.size(); ++row)
    text += concat("    - {worker: ", plan.choice.worker_of(row), ", compute_ms: ", ms(p.compute_us[row]),
                   ", wait_ms: ", ms(p.wait_us[row]),
                   ", update_ms: ", ms(p.costs.update_us.empty() ? 0.0 : p.costs.update_us[row]),
                   p.costs.reduce_us.empty() ? "" : ", reduce_ms: " + ms(p.costs.reduce_us[row]),
                   ", peak_bytes: ", bytes(p.peak_bytes[row]), "}\n");
  text += stages_text(p);
  text += "  # What the layers cost, of one micro-batch and in a whole step.\n  layers:\n";
  for (const PredictedLayer& layer : p.layers)
    text += concat("    - {name: ", quoted(layer.name), ", forward_ms: ", ms(layer.forward_us),
                   ", input_grad_ms: ", ms(layer.input_grad_us), ", weight_grad_ms: ", ms(layer.weight_grad_us),
                   ", step_ms: ", ms(layer.step_us), "}\n");
  text += concat("  # Messages: bytes of each flow between two stages, of each shared parameter, and the links.\n",
                 "  flow_bytes: [", join(byte_list(of_one(p.costs.flow_bytes, plan.replicas))), "]\n  tie_bytes: [",
                 join(byte_list(of_one(p.costs.shared_bytes, plan.replicas))), "]\n",
                 p.costs.element_bytes == Costs().element_bytes
                     ? ""
                     : concat("  gradient_bytes: ", number(p.costs.element_bytes), "  # of an element\n"),
                 "  links:\n");
  const bool devices = uses_devices(plan.workers);
  for (const LinkClass& link : link_classes())
    if (devices || !link.copies) text += concat("    ", link.key, ": ", link_text(p.costs.links.*link.member), "\n");
  return text;
}

// ---- reading ----

PlannedWorker read_worker(const Section& section) {
  constexpr int most = 1 << 20;
  PlannedWorker worker;
  worker.speed = section.get("speed", worker.speed, above(0.0));
  const Rule<std::string> size{size_rule() + ", or none", [](const std::string& text) {
                                 return text == "none" || parse_size(text).value_or(0) > 0;
                               }};
  const std::string limit = section.get("limit", std::string("none"), size);
  if (limit != "none") worker.limit_bytes = static_cast<double>(*parse_size(limit));
  worker.place = {section.get("rank", 0, between(0, most)), section.get("host", 0, between(0, most)),
                  section.get("device", worker.place.device, not_empty())};
  const std::string type = worker.place.device.substr(0, worker.place.device.find(':'));
  worker.kind = section.get("kind", type, not_empty());
  section.finish();
  return worker;
}

double read_us(const Section& section, const char* key) {
  return section.get<double>(key, at_least(0.0)) * kUsPerMs;
}

void read_stages(const Section& section, PlanPrediction& p) {
  for (const Section& from : section.sections("stages")) {
    PredictedStage stage;
    stage.row = from.get<int>("row", at_least(0));
    stage.layers = from.get<int>("layers", at_least(1));
    stage.parameters = from.get<std::int64_t>("parameters", at_least<std::int64_t>(0));
    stage.in_flight = from.get<int>("in_flight", at_least(0));
    stage.state_bytes = from.get<double>("state_bytes", at_least(0.0));
    StageCost cost;
    cost.forward_us = read_us(from, "forward_ms");
    cost.input_grad_us = read_us(from, "input_grad_ms");
    cost.weight_grad_us = read_us(from, "weight_grad_ms");
    cost.recompute_us = read_us(from, "recompute_ms");
    from.finish();
    p.stages.push_back(stage);
    p.costs.stages.push_back(cost);
  }
}

void read_link(const Section& from, LinkCost& cost) {
  cost.latency_us = from.get<double>("latency_us", at_least(0.0));
  if (from.has("gigabytes_per_s"))
    cost.bytes_per_us = from.get<double>("gigabytes_per_s", above(0.0)) * kBytesPerUsPerGigabyte;
  cost.busy_us_per_byte = from.get<double>("busy_us_per_mib", 0.0, at_least(0.0)) / kBytesPerMib;
  from.finish();
}

void read_links(const Section& section, Links& links) {
  for (const LinkClass& link : link_classes())
    if (!link.copies || section.has(link.key)) read_link(section.required_section(link.key), links.*link.member);
  section.finish();
}

PlanPrediction read_prediction(const Section& section, const PlanFile& plan) {
  PlanPrediction p;
  p.step_us = read_us(section, "step_ms");
  p.alone_us = read_us(section, "alone_ms");
  p.bubble = section.get<double>("bubble", between(0.0, 1.0));
  p.bubble_steady = section.get<double>("bubble_steady", between(0.0, 1.0));
  if (section.has("with_all_ms")) p.with_all_us = read_us(section, "with_all_ms");
  for (const Section& worker : section.sections("workers")) {
    const int number = worker.get<int>("worker", between(0, static_cast<int>(plan.workers.size()) - 1));
    p.costs.places.push_back(plan.workers[static_cast<std::size_t>(number)].place);
    p.compute_us.push_back(read_us(worker, "compute_ms"));
    p.wait_us.push_back(read_us(worker, "wait_ms"));
    p.costs.update_us.push_back(read_us(worker, "update_ms"));
    if (worker.has("reduce_ms")) p.costs.reduce_us.push_back(read_us(worker, "reduce_ms"));
    p.peak_bytes.push_back(worker.get<double>("peak_bytes", at_least(0.0)));
    worker.finish();
  }
  read_stages(section, p);
  for (const Section& from : section.sections("layers")) {
    PredictedLayer layer{from.get<std::string>("name")};
    layer.forward_us = read_us(from, "forward_ms");
    layer.input_grad_us = read_us(from, "input_grad_ms");
    layer.weight_grad_us = read_us(from, "weight_grad_ms");
    layer.step_us = read_us(from, "step_ms");
    from.finish();
    p.layers.push_back(std::move(layer));
  }
  for (int replica = 0; replica < plan.replicas; ++replica)
    for (const auto& [key, bytes] :
         {std::pair("flow_bytes", &p.costs.flow_bytes), {"tie_bytes", &p.costs.shared_bytes}})
      for (const double of_message : section.list<double>(key, at_least(0.0))) bytes->push_back(of_message);
  p.costs.element_bytes = section.get<double>("gradient_bytes", p.costs.element_bytes, above(0.0));
  read_links(section.required_section("links"), p.costs.links);
  section.finish();
  return p;
}

}  // namespace

bool uses_devices(const std::vector<PlannedWorker>& workers) {
  return std::any_of(workers.begin(), workers.end(),
                     [](const PlannedWorker& worker) { return !worker.place.is_on_host(); });
}

std::string prediction_key(const Config& config, const std::vector<PlannedWorker>& workers) {
  const PipelineConfig& pipeline = config.pipeline;
  const TrainConfig& train = config.train;
  // A list of layers was a value of its own when the first plans were written.
  const std::string recompute = pipeline.recompute_layers.empty() ? to_string(pipeline.recompute) : "layers";
  std::string text = concat(
      pipeline.stages, ";", pipeline.virtual_stages, ";", pipeline.schedule, ";", join(pipeline.partition.counts), ";",
      pipeline.partition.counts.empty() ? to_string(pipeline.partition.by) : "", ";",
      join(pipeline.partition.cut_before), ";", recompute, ";", join(pipeline.recompute_layers), ";");
  // Nothing but the identity is left out of a plan.
  text += concat(join(pipeline.placement), ";", train.batch, ";", train.micro_batches, ";", to_string(train.precision),
                 ";", optimizer_cost_key(train), ";", train.clip_grad_norm > 0, ";", train.post_validation, ";",
                 config.workers.threads);
  if (config.replicas.count > 1 || config.gradient_groups() > 1)
    text += concat(";", config.replicas.count, ";", to_string(config.replicas.placement), ";",
                   config.replicas.shard_optimizer, ";", config.gradient_groups());
  if (uses_devices(workers))
    text += concat(";", config.kernels.deterministic, ";", to_string(config.kernels.float32_matmul));
  for (const PlannedWorker& worker : workers)
    text += concat(";", number(worker.speed), ",", worker.place.rank, ",", worker.place.host,
                   worker.place.is_on_host() ? "" : "," + worker.place.device,
                   worker.kind == kHostKind ? "" : "," + worker.kind);
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a, 64 bits
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << hash;
  return out.str();
}

std::string to_yaml(const PlanFile& plan) {
  LOCKSTEP_CHECK(!plan.choice.layers_per_stage.empty(), "a plan without stages");
  std::string text = concat(
      "# A plan of Lockstep; docs/planning.md explains it. Train with it:\n#   lockstep train ", plan.config,
      " --plan THIS_FILE\nformat: ", kFormat, "\n", "config: ", quoted(plan.config), "  # that it was made from\n",
      "model: {name: ", quoted(plan.model), ", layers: ", plan.layers, ", signature: ", quoted(plan.signature), "}\n",
      "# What it was made for. The plan's micro_batches take the place of `micro_batches: auto`.\n",
      "train: {batch: ", plan.batch, ", micro_batches: ", plan.micro_batches,
      plan.gradient_groups > 1 ? concat(", gradient_groups: ", plan.gradient_groups) : std::string(), "}\n\n");
  text += pipeline_text(plan) + "\n" + workers_text(plan);
  if (plan.predicted) text += "\n" + predicted_text(plan);
  if (!plan.profile.empty()) text += profile_text(plan);
  return text;
}

PlanFile read_plan(const Section& root) {
  if (!root.has("format") || (root.has("model") && !root.is_mapping("model")))
    throw root.error("", "this is no plan; lockstep plan makes one");
  if (const int format = root.get<int>("format"); format != kFormat)
    throw root.unexpected("format", std::to_string(kFormat),
                          "; another version of Lockstep wrote it: plan again with lockstep plan");
  PlanFile plan;
  plan.root = root;
  plan.config = root.get("config", std::string());
  const Section model = root.required_section("model");
  plan.model = model.get("name", std::string());
  plan.layers = model.get<int>("layers", at_least(1));
  plan.signature = model.get<std::string>("signature", not_empty());
  model.finish();
  plan.train = root.required_section("train");
  plan.batch = plan.train.get<std::int64_t>("batch", at_least<std::int64_t>(1));
  plan.micro_batches = plan.train.get<int>("micro_batches", at_least(1));
  plan.gradient_groups = plan.train.get("gradient_groups", plan.gradient_groups, at_least(1));
  plan.train.finish();
  plan.pipeline = root.required_section("pipeline");
  for (const char* key : {"stages", "virtual_stages", "schedule", "partition", "recompute", "placement"})
    plan.pipeline.has(key);
  plan.pipeline.finish();
  plan.replicas_section = root.section("replicas");
  plan.replicas = plan.replicas_section.get("count", plan.replicas, at_least(1));
  plan.replicas_section.has("placement");
  plan.replicas_section.finish();
  for (const Section& worker : root.sections("workers")) plan.workers.push_back(read_worker(worker));
  plan.idle = root.list<int>("idle", {}, at_least(0));
  if (root.is_mapping("profile")) plan.profile = root.section("profile").to_yaml();
  if (root.has("predicted")) {
    const Section predicted = root.section("predicted");
    plan.key = predicted.get<std::string>("of");
    plan.predicted_micro_batches =
        predicted.get("micro_batches", plan.micro_batches, at_least(1));  // the first plans did not say it
    plan.predicted = read_prediction(predicted, plan);
  }
  root.finish();
  return plan;
}

std::string idle_text(const PlanFile& plan) {
  if (plan.idle.empty() || !plan.predicted) return "";
  const std::size_t all = plan.workers.size() + plan.idle.size();
  const double with_all_us = plan.predicted->with_all_us;
  return concat(
      plan.workers.size(), " of ", all, " workers: ", time_text(plan.predicted->step_us), " a step; with all ", all,
      with_all_us > 0 ? ": " + time_text(with_all_us) : std::string(" nothing fits, or there are too few layers"));
}

ReplicaPlacement placement_of_replicas(const PlanChoice& choice, int replicas) {
  const std::vector<int>& placement = choice.placement;
  const std::size_t rows = placement.size() / static_cast<std::size_t>(replicas);
  for (std::size_t row = rows; row < placement.size(); ++row)
    if (placement[row] != placement[row % rows] + static_cast<int>(row / rows * rows))
      return ReplicaPlacement::replicas_first;
  return ReplicaPlacement::pipeline_first;
}

std::vector<int> placement_of_one(const PlanChoice& choice, int replicas) {
  std::vector<int> placement = of_one(choice.placement, replicas);
  if (placement_of_replicas(choice, replicas) == ReplicaPlacement::replicas_first)
    for (int& worker : placement) worker /= replicas;
  return placement;
}

std::string schedule_text(const PlanChoice& choice) {
  return choice.virtual_stages == 1 ? choice.schedule : concat(choice.schedule, " x ", choice.virtual_stages);
}

}  // namespace lockstep
