// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/config.hpp"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "runtime/base/size.hpp"
#include "runtime/config/value.hpp"

namespace lockstep {
namespace {

constexpr const char* kLater = ": not available yet";
// A slip of the finger must not become gigabytes, or hours.
constexpr int kMostStages = 4096;
constexpr std::int64_t kMostCells = std::int64_t{1} << 20;  // stages x micro-batches: a program holds them all
constexpr int kMostThreads = 4096;

/// A key of the design whose other values come later: `neutral` passes, anything else is refused.
template <typename T>
void only(const Section& section, const std::string& key, const T& got, const T& neutral, const std::string& what) {
  if (got != neutral) throw section.unexpected(key, concat(neutral), concat("; ", what, kLater));
}

bool is_text(const Section& section, const std::string& key, const std::string& text) {
  return section.is_scalar(key) && section.get<std::string>(key) == text;
}

struct KeyUse {
  std::string key;
  std::vector<std::string> types;
};

/// A key that the chosen type would ignore is a misunderstanding: refused by name.
void refuse_unused(const Section& section, const std::string& type, const std::vector<KeyUse>& uses) {
  for (const KeyUse& use : uses) {
    const bool used = std::find(use.types.begin(), use.types.end(), type) != use.types.end();
    if (used || !section.has(use.key)) continue;
    throw section.unexpected(use.key, concat("no ", use.key, " with type ", type),
                             concat("; it belongs to ", join(use.types, " and "), ": remove it"));
  }
}

void read_betas(const Section& section, OptimizerConfig& optimizer) {
  const std::vector<double> betas =
      section.list<double>("betas", {optimizer.beta1, optimizer.beta2}, fraction_below_one());
  if (betas.size() != 2) throw section.unexpected("betas", "two numbers >= 0 and < 1, such as [0.9, 0.999]");
  optimizer.beta1 = betas[0];
  optimizer.beta2 = betas[1];
}

std::vector<OptimizerGroup> read_groups(const Section& section, double default_weight_decay) {
  std::vector<OptimizerGroup> groups;
  for (const Section& from : section.sections("groups")) {
    OptimizerGroup group;
    group.match = from.list<std::string>("match", not_empty());
    if (group.match.empty()) throw from.unexpected("match", "at least one pattern of parameter names");
    group.lr_scale = from.get("lr_scale", group.lr_scale, at_least(0.0));
    group.weight_decay = from.get("weight_decay", default_weight_decay, at_least(0.0));
    from.finish();
    groups.push_back(std::move(group));
  }
  return groups;
}

/// The kernels compute in float32: where eps is 0 in it a gradient of 0 is divided by 0.
Rule<double> eps_in_float32() {
  return {
      "more than 1e-45: it is 0 in float32, and a gradient of 0 would be divided by it, which gives NaN; the usual "
      "value is 1e-8",
      [](const double& eps) { return static_cast<float>(eps) > 0; }};
}

OptimizerConfig read_optimizer(const Section& section) {
  OptimizerConfig optimizer;
  optimizer.type = section.get("type", optimizer.type, one_of({"sgd", "adam", "adamw"}));
  refuse_unused(section, optimizer.type,
                {{"momentum", {"sgd"}},
                 {"nesterov", {"sgd"}},
                 {"dampening", {"sgd"}},
                 {"betas", {"adam", "adamw"}},
                 {"eps", {"adam", "adamw"}}});
  optimizer.lr = section.get("lr", optimizer.lr, at_least(0.0));
  if (optimizer.type == "sgd") {
    optimizer.momentum = section.get("momentum", optimizer.momentum, at_least(0.0));
    optimizer.dampening = section.get("dampening", optimizer.dampening, at_least(0.0));
    optimizer.nesterov = section.get("nesterov", optimizer.nesterov);
    if (optimizer.nesterov && !(optimizer.momentum > 0.0 && optimizer.dampening == 0.0)) {
      throw section.unexpected(
          "nesterov", "false",
          "; Nesterov's method needs a momentum above 0 and no dampening: set these, or leave it out");
    }
  } else {
    read_betas(section, optimizer);
    optimizer.eps = section.get("eps", optimizer.eps, eps_in_float32());
  }
  const double default_weight_decay = optimizer.type == "adamw" ? 0.01 : 0.0;
  optimizer.weight_decay = section.get("weight_decay", default_weight_decay, at_least(0.0));
  optimizer.decay_norms_and_biases = section.get("decay_norms_and_biases", optimizer.decay_norms_and_biases);
  optimizer.groups = read_groups(section, optimizer.weight_decay);
  section.finish();
  return optimizer;
}

LrScheduleConfig read_lr_schedule(const Section& section) {
  LrScheduleConfig schedule;
  schedule.type = section.get("type", schedule.type, one_of({"constant", "linear", "cosine", "step"}));
  refuse_unused(section, schedule.type,
                {{"min_lr", {"linear", "cosine"}},
                 {"decay_steps", {"linear", "cosine"}},
                 {"step_every", {"step"}},
                 {"step_factor", {"step"}}});
  const std::int64_t none = 0;
  schedule.warmup_steps = section.get("warmup_steps", schedule.warmup_steps, at_least(none));
  if (schedule.type == "step") {
    schedule.step_every = section.get("step_every", at_least<std::int64_t>(1));
    schedule.step_factor = section.get("step_factor", schedule.step_factor, above(0.0));
  } else if (schedule.type != "constant") {
    schedule.min_lr = section.get("min_lr", schedule.min_lr, at_least(0.0));
    schedule.decay_steps = section.get("decay_steps", schedule.decay_steps, at_least(none));
  }
  section.finish();
  return schedule;
}

TrainConfig read_train(const Section& section) {
  const std::int64_t none = 0;
  const std::int64_t one = 1;
  TrainConfig train;
  train.steps = section.get("steps", at_least(one));
  train.batch = section.get("batch", at_least(one));
  if (is_text(section, "micro_batches", "auto")) {
    throw section.unexpected("micro_batches", "an integer >= 1",
                             "; a plan names it: lockstep plan CONFIG ... -o plan.yaml, then --plan plan.yaml");
  }
  train.micro_batches = section.get("micro_batches", train.micro_batches, at_least(1));
  if (train.micro_batches > train.batch) {
    throw section.unexpected("micro_batches", concat("at most train.batch, which is ", train.batch));
  }
  train.loss = section.get("loss", not_empty());
  train.precision = section.get("precision", train.precision, one_of({"fp32", "bf16"}));
  train.clip_grad_norm = section.get("clip_grad_norm", train.clip_grad_norm, at_least(0.0));
  train.post_validation = section.get("post_validation", train.post_validation);
  if (train.post_validation && train.clip_grad_norm == 0.0) {
    throw section.unexpected("post_validation", "false without clip_grad_norm",
                             "; only clipping makes an update wait: set train.clip_grad_norm, or leave it out");
  }
  train.optimizer = read_optimizer(section.section("optimizer"));
  train.lr_schedule = read_lr_schedule(section.section("lr_schedule"));
  train.eval_every = section.get("eval_every", train.eval_every, at_least(none));
  train.eval_batch = section.get("eval_batch", train.eval_batch, at_least(none));
  train.eval_steps = section.get("eval_steps", train.eval_steps, at_least(none));
  train.freeze = section.list<std::string>("freeze", {}, not_empty());
  train.stop_on_nan = section.get("stop_on_nan", train.stop_on_nan);
  train.log_every = section.get("log_every", train.log_every, at_least(one));
  train.stop_after = section.get("stop_after", train.stop_after, at_least(none));
  section.finish();
  return train;
}

std::vector<std::string> read_cuts(const Section& section) {
  std::vector<std::string> cuts = section.list<std::string>("cut_before", {}, not_empty());
  for (auto cut = cuts.begin(); cut != cuts.end(); ++cut) {
    if (std::find(cuts.begin(), cut, *cut) == cut) continue;
    throw section.unexpected("cut_before", "each layer once", concat("; '", *cut, "' is there twice"));
  }
  return cuts;
}

PartitionConfig read_partition(const Section& pipeline) {
  const auto by = one_of({"layers", "params", "time", "memory", "block", "auto"});
  PartitionConfig partition;
  if (pipeline.is_sequence("partition")) {
    partition.counts = pipeline.list<int>("partition", at_least(1));
    if (partition.counts.empty()) throw pipeline.unexpected("partition", "the number of layers of each stage");
  } else if (pipeline.is_scalar("partition")) {
    partition.by = pipeline.get("partition", by);
  } else if (pipeline.is_mapping("partition")) {
    const Section section = pipeline.section("partition");
    if (section.has("by") && section.has("cut_before")) {
      throw section.unexpected("cut_before", "either by or cut_before", "; remove one of them");
    }
    partition.by = section.get("by", partition.by, by);
    partition.cut_before = read_cuts(section);
    section.finish();
  } else if (pipeline.has("partition")) {
    throw pipeline.unexpected("partition",
                              "auto, layers, params, time, memory, block, a list of layers per stage, or {cut_before: "
                              "[layer names]}");
  }
  return partition;
}

/// The number of stages that a partition itself gives; 0 when it leaves that open.
int stages_of(const PartitionConfig& partition) {
  if (!partition.counts.empty()) return static_cast<int>(partition.counts.size());
  return partition.cut_before.empty() ? 0 : static_cast<int>(partition.cut_before.size()) + 1;
}

int read_stages(const Section& section, const PartitionConfig& partition) {
  const int of_partition = stages_of(partition);
  const int stages = section.get("stages", std::max(of_partition, 1), between(1, kMostStages));
  if (of_partition != 0 && stages != of_partition) {
    throw section.error("partition", concat("got ", of_partition, of_partition == 1 ? " stage" : " stages",
                                            ", expected ", stages, " as pipeline.stages says; change one of the two"));
  }
  return stages;
}

/// file:PATH, "file: PATH" or {file: PATH}; empty for the name of a schedule.
std::string read_schedule_file(const Section& section) {
  constexpr std::string_view prefix = "file:";
  if (section.is_mapping("schedule")) {
    const Section from = section.section("schedule");
    const std::string path = from.get("file", not_empty());
    from.finish();
    return path;
  }
  if (!section.is_scalar("schedule")) return "";
  std::string text = section.get<std::string>("schedule");
  if (!text.starts_with(prefix)) return "";
  text.erase(0, std::min(text.find_first_not_of(' ', prefix.size()), text.size()));
  if (text.empty()) throw section.unexpected("schedule", "file:PATH, such as file:my.csv");
  return text;
}

int read_virtual_stages(const Section& section, const PipelineConfig& pipeline) {
  if (!pipeline.schedule_file.empty()) {
    if (section.has("virtual_stages"))
      throw section.unexpected("virtual_stages", "no virtual_stages with a schedule from a file",
                               concat("; ", pipeline.schedule_file, " says which stages a worker has: remove it"));
    return 0;
  }
  const int number = section.get("virtual_stages", 1, between(1, kMostStages));
  if (pipeline.stages % number != 0) {
    const int fewer = pipeline.stages / number * number;
    throw section.error(
        "stages", concat("got ", pipeline.stages, ", expected a multiple of pipeline.virtual_stages, ", "which is ",
                         number, ": ", fewer > 0 ? concat(fewer, " or ") : std::string(), fewer + number));
  }
  return number;
}

void read_recompute(const Section& section, PipelineConfig& pipeline) {
  if (section.is_sequence("recompute")) {
    pipeline.recompute = "layers";
    pipeline.recompute_layers = section.list<std::string>("recompute", not_empty());
    if (!pipeline.recompute_layers.empty()) return;
    throw section.unexpected("recompute", "at least one pattern of layer names");
  }
  pipeline.recompute = section.get("recompute", pipeline.recompute, one_of({"never", "except_last", "always"}));
}

std::vector<double> read_cost(const Section& section, const std::string& key, const std::vector<double>& none) {
  if (section.is_scalar(key)) return {section.get(key, at_least(0.0))};
  const std::vector<double> numbers = section.list<double>(key, none, at_least(0.0));
  if (section.has(key) && numbers.empty()) throw section.unexpected(key, "a number, or one per stage or per layer");
  return numbers;
}

CostsConfig read_costs(const Section& pipeline) {
  CostsConfig costs;
  costs.given = pipeline.has("costs");
  const Section section = pipeline.section("costs");
  costs.forward_ms = read_cost(section, "forward_ms", costs.forward_ms);
  costs.input_grad_ms = read_cost(section, "input_grad_ms", {});
  costs.weight_grad_ms = read_cost(section, "weight_grad_ms", {});
  costs.activation_bytes = read_cost(section, "activation_bytes", {});
  costs.weight_grad_bytes = read_cost(section, "weight_grad_bytes", {});
  costs.message_bytes = section.get("message_bytes", costs.message_bytes, at_least(0.0));
  costs.latency_us = section.get("latency_us", costs.latency_us, at_least(0.0));
  costs.gigabytes_per_s = section.get("gigabytes_per_s", costs.gigabytes_per_s, at_least(0.0));
  section.finish();
  return costs;
}

std::vector<int> read_placement(const Section& section, int workers) {
  if (workers == 0) return section.list<int>("placement", {}, at_least(0));  // a schedule file: checked with it
  std::vector<int> identity(static_cast<std::size_t>(workers));
  for (int row = 0; row < workers; ++row) identity[static_cast<std::size_t>(row)] = row;
  std::vector<int> placement = section.get("placement", identity);
  if (placement.empty()) return identity;
  std::vector<int> sorted = placement;
  std::sort(sorted.begin(), sorted.end());
  if (sorted != identity) {
    const std::string numbers = workers == 1 ? "[0]" : concat("each of 0 to ", workers - 1, " once");
    throw section.unexpected("placement", concat(numbers, ": a worker for each of the ", workers, " rows"));
  }
  return placement;
}

PipelineConfig read_pipeline(const Section& section) {
  PipelineConfig pipeline;
  pipeline.partition = read_partition(section);
  pipeline.stages = read_stages(section, pipeline.partition);
  pipeline.schedule_file = read_schedule_file(section);
  pipeline.schedule = pipeline.schedule_file.empty() ? section.get("schedule", pipeline.schedule, not_empty())
                                                     : "file:" + pipeline.schedule_file;
  pipeline.virtual_stages = read_virtual_stages(section, pipeline);
  read_recompute(section, pipeline);
  pipeline.in_flight_limit = section.get("in_flight_limit", pipeline.in_flight_limit, at_least<std::int64_t>(0));
  pipeline.costs = read_costs(section);
  pipeline.placement = read_placement(section, pipeline.workers());
  section.finish();
  return pipeline;
}

std::vector<int> read_per_rank(const Section& section) {
  if (!section.has("per_rank") || is_text(section, "per_rank", "auto")) return {};
  if (section.is_sequence("per_rank")) {
    std::vector<int> per_rank = section.list<int>("per_rank", at_least(1));
    if (per_rank.empty()) throw section.unexpected("per_rank", "the number of workers of each rank");
    return per_rank;
  }
  const Rule<int> rule{"auto, an integer >= 1, or a list of them", [](const int& count) { return count >= 1; }};
  return {section.get("per_rank", rule)};
}

bool is_device(const std::string& name) {
  constexpr std::string_view numbered = "cuda:";
  if (name == "cpu" || name == "cuda") return true;
  if (!name.starts_with(numbered)) return false;
  const std::string number = name.substr(numbered.size());
  const bool digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
  return digits && number.size() <= 4 && (number == "0" || number[0] != '0');
}

WorkersConfig read_workers(const Section& section) {
  WorkersConfig workers;
  workers.per_rank = read_per_rank(section);
  const Rule<std::string> device{"cpu, cuda or cuda:N", is_device};
  workers.devices = section.list<std::string>("devices", {"cpu"}, device);
  if (workers.devices.empty()) throw section.unexpected("devices", "at least one device, such as [cpu]");
  workers.threads = section.get("threads", workers.threads, between(1, kMostThreads));
  workers.bind = section.get("bind", workers.bind, one_of({"none", "cores"}));
  const Rule<std::string> size{size_rule() + ", or none", [](const std::string& text) {
                                 return text == "none" || parse_size(text).value_or(0) > 0;
                               }};
  const std::string none = "none";
  workers.memory_limit = parse_size(section.get("memory_limit", none, size)).value_or(0);
  section.finish();
  return workers;
}

/// The number before `unit` ("" or "min"); 0 when `text` is something else.
std::int64_t count_of(const std::string& text, const std::string& unit) {
  constexpr std::size_t most_digits = 15;
  if (!text.ends_with(unit)) return 0;
  const std::string number = text.substr(0, text.size() - unit.size());
  const bool digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
  return digits && number.size() <= most_digits && number[0] != '0' ? std::stoll(number) : 0;
}

CheckpointConfig read_checkpoint(const Section& section, const TrainConfig& train) {
  CheckpointConfig checkpoint;
  const Rule<std::string> every{
      "a number of steps (100) or minutes (10min), end or never", [](const std::string& text) {
        return text == "end" || text == "never" || count_of(text, "") > 0 || count_of(text, "min") > 0;
      }};
  checkpoint.every = section.get("every", checkpoint.every, every);
  checkpoint.keep = section.get("keep", checkpoint.keep, at_least(1));
  checkpoint.best = section.get("best", checkpoint.best, one_of({"none", "eval_loss"}));
  checkpoint.background = section.get("background", checkpoint.background, one_of({"auto", "always", "never"}));
  section.finish();
  if (checkpoint.best == "none") return checkpoint;
  if (train.eval_every == 0)
    throw section.unexpected("best", "none", "; nothing is evaluated: set train.eval_every and data.eval");
  if (checkpoint.every_steps() % train.eval_every != 0)
    throw section.unexpected("best", "none",
                             concat("; checkpoint.every (", checkpoint.every, ") is no multiple of train.eval_every (",
                                    train.eval_every, "), so some checkpoints would have no evaluation: make it one"));
  return checkpoint;
}

CommConfig read_comm(const Section& section) {
  CommConfig comm;
  comm.watchdog_s = section.get("watchdog_s", comm.watchdog_s, at_least(1));
  comm.startup_s = section.get("startup_s", comm.startup_s, at_least(1));
  comm.save_s = section.get("save_s", comm.save_s, at_least(1));
  if (section.get("device_buffers", false)) {
    throw section.unexpected("device_buffers", "false", concat("; handing device memory to MPI", kLater));
  }
  section.finish();
  return comm;
}

KernelsConfig read_kernels(const Section& section) {
  KernelsConfig kernels;
  kernels.gemm = section.get("gemm", kernels.gemm, one_of({"auto", "default"}));
  section.finish();
  return kernels;
}

/// Sections of the design that have only neutral values today.
void check_later_sections(const Section& root) {
  const Section replicas = root.section("replicas");
  only(replicas, "count", replicas.get("count", 1, at_least(1)), 1, "data parallelism");
  const std::string mirrored = "mirrored";
  only(replicas, "strategy",
       replicas.get("strategy", mirrored, one_of({"mirrored", "central_storage", "parameter_server"})), mirrored,
       "data parallelism");
  replicas.finish();
}

void check_cells(const Section& train, const Config& config) {
  if (std::int64_t{config.pipeline.stages} * config.train.micro_batches <= kMostCells) return;
  throw train.unexpected("micro_batches",
                         concat("at most ", kMostCells / config.pipeline.stages, " with ", config.pipeline.stages,
                                config.pipeline.stages == 1 ? " stage" : " stages"));
}

Rule<std::string> file_name() {
  return {"a name that can be a folder (not empty, no '/')", [](const std::string& name) {
            return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
          }};
}

Section typed_section(const Section& root, const std::string& key) {
  Section section = root.required_section(key);
  section.get("type", not_empty());
  return section;
}

}  // namespace

bool PartitionConfig::needs_profile() const {
  return counts.empty() && cut_before.empty() && by != "layers" && by != "params";
}

std::int64_t CheckpointConfig::every_steps() const {
  return count_of(every, "");
}
std::int64_t CheckpointConfig::every_minutes() const {
  return count_of(every, "min");
}

Config read_config(const Section& root) {
  Config config;
  config.root = root;
  config.name = root.get("name", std::filesystem::path(root.location().file).stem().string(), file_name());
  config.seed = root.get("seed", config.seed);
  config.model = typed_section(root, "model");
  config.data = typed_section(root, "data");
  config.train = read_train(root.required_section("train"));
  config.pipeline = read_pipeline(root.section("pipeline"));
  check_cells(root.section("train"), config);
  config.workers = read_workers(root.section("workers"));
  config.kernels = read_kernels(root.section("kernels"));
  check_later_sections(root);
  config.checkpoint = read_checkpoint(root.section("checkpoint"), config.train);
  config.comm = read_comm(root.section("comm"));
  config.run_dir = root.get("run_dir", "runs/" + config.name, not_empty());
  root.finish();
  return config;
}

void check_config(const Config& config) {
  Config complete = config;
  if (complete.train.loss.empty()) complete.train.loss = "of the heads";
  auto document =
      std::make_shared<yaml::Value>(yaml::parse(resolved_yaml(complete), {"Config", "", /*located=*/false}));
  const Section root = yaml::root_section(std::move(document));
  const TrainConfig train = read_train(root.section("train"));
  complete.pipeline = read_pipeline(root.section("pipeline"));
  check_cells(root.section("train"), complete);
  read_workers(root.section("workers"));
  read_kernels(root.section("kernels"));
  read_checkpoint(root.section("checkpoint"), train);
  read_comm(root.section("comm"));
}

}  // namespace lockstep
