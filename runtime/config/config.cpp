// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/config.hpp"

#include <algorithm>
#include <filesystem>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/config/fields.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kMostCells = std::int64_t{1} << 20;  // stages x micro-batches: a program holds them all
constexpr int kMostThreads = 4096, kMostServers = 4096, kMostReaders = 256, kMostReadAhead = 1024;

Field per_rank(WorkersConfig& workers) {
  const Rule<int> number{"auto, an integer >= 1, or a list of them", [](const int& count) { return count >= 1; }};
  return {"",
          [&workers, number](const Section& section, const std::string& key) {
            if (section.is_sequence(key))
              return list(workers.per_rank, at_least(1), "the number of workers of each rank").read(section, key);
            const bool automatic = section.is_scalar(key) && section.get<std::string>(key) == "auto";
            workers.per_rank = automatic ? std::vector<int>{} : std::vector<int>{section.get(key, number)};
          },
          [&workers] {
            if (workers.per_rank.empty()) return scalar_value("auto");
            return workers.per_rank.size() == 1 ? scalar_value(text_of(workers.per_rank[0]))
                                                : list_value(workers.per_rank);
          }};
}

Rule<std::string> device() {
  return {"cpu, cuda or cuda:N", [](const std::string& name) {
            constexpr std::string_view numbered = "cuda:";
            if (name == "cpu" || name == "cuda") return true;
            if (!name.starts_with(numbered)) return false;
            const std::string number = name.substr(numbered.size());
            const bool digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
            return digits && number.size() <= 4 && (number == "0" || number[0] != '0');
          }};
}

Field memory_limit(WorkersConfig& workers) {
  const Rule<std::string> size{size_rule() + ", or none", [](const std::string& text) {
                                 return text == "none" || parse_size(text).value_or(0) > 0;
                               }};
  return {"",
          [&workers, size](const Section& section, const std::string& key) {
            workers.memory_limit = parse_size(section.get(key, size)).value_or(0);
          },
          [&workers] {
            if (workers.memory_limit == 0) return scalar_value("none");
            return scalar_value(exact_size_text(workers.memory_limit));
          }};
}

/// The number before `unit` ("" or "min"); 0 when `text` is something else.
std::int64_t count_of(const std::string& text, const std::string& unit) {
  constexpr std::size_t most_digits = 15;
  if (!text.ends_with(unit)) return 0;
  const std::string number = text.substr(0, text.size() - unit.size());
  const bool digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
  return digits && number.size() <= most_digits && number[0] != '0' ? std::stoll(number) : 0;
}

void check_best(const Section& section, const CheckpointConfig& checkpoint, const TrainConfig& train) {
  if (!checkpoint.keeps_best()) return;
  if (train.eval_every == 0)
    throw section.unexpected("best", "none", "; nothing is evaluated: set train.eval_every and data.eval");
  if (checkpoint.every_steps() % train.eval_every != 0)
    throw section.unexpected("best", "none",
                             concat("; checkpoint.every (", checkpoint.every, ") is no multiple of train.eval_every (",
                                    train.eval_every, "), so some checkpoints would have no evaluation: make it one"));
}

void fields(FieldVisitor& visit, CheckpointConfig& checkpoint, const TrainConfig& train) {
  const Rule<std::string> every{
      "a number of steps (100) or minutes (10min), end or never", [](const std::string& text) {
        return text == "end" || text == "never" || count_of(text, "") > 0 || count_of(text, "min") > 0;
      }};
  visit("every", value(checkpoint.every, every), kFree,
        "When to save. Unless it is never, there is also one after the last step and one when the job is told to stop "
        "(TERM, INT, USR1). train.stop_after saves whatever stands here.");
  visit("keep", value(checkpoint.keep, at_least(1)), kFree, "How many are kept; older ones are removed.");
  visit(
      "best", value(checkpoint.best, not_empty()).checked([&](const Section& section) {
        check_best(section, checkpoint, train);
      }),
      kFree,
      "eval_loss, or one of train.metrics: the one whose evaluation is best by it is kept too, and `best` links to it; "
      "`every` in steps must then be a multiple of train.eval_every. none: none is.");
  visit(
      "background", value(checkpoint.background), kFree,
      "Write a copy while training goes on (always), or hold training until all is written (never). auto: a copy where "
      "memory for it is free and workers.memory_limit is none.");
}

/// A mapping whose keys others read: `type`, or else `instead`, is one of them.
Field others(Section& member, const char* example, const char* instead = nullptr) {
  Field field;
  field.read = [&member, instead](const Section& section, const std::string& key) {
    member = section.required_section(key);
    if (member.has("type") || !instead || !member.has(instead)) member.get("type", not_empty());
  };
  field.write = [&member] { return member.value(); };
  return field.required().with_example(example);
}

void check_cells(const Section& root, const Config& config) {
  if (std::int64_t{config.pipeline.stages} * config.train.micro_batches <= kMostCells) return;
  throw root.section("train").unexpected(
      "micro_batches", concat("at most ", kMostCells / config.pipeline.stages, " with ", config.pipeline.stages,
                              config.pipeline.stages == 1 ? " stage" : " stages"));
}

Rule<std::string> file_name() {
  return {"a name that can be a folder (not empty, no '/')", [](const std::string& name) {
            return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
          }};
}

/// What does not go with servers.
void check_servers(const Section& root, const Config& config) {
  if (!config.replicas.has_servers()) return;
  if (config.pipeline.stages > 1 || config.pipeline.virtual_stages > 1)
    throw root.section("pipeline")
        .unexpected("stages", "1 with replicas.strategy parameter_server",
                    "; each replica is one worker there, and its weights are the servers'");
  if (config.pipeline.partition.needs_profile())
    throw root.section("pipeline")
        .unexpected("partition", "none with replicas.strategy parameter_server", "; there is nothing to cut");
  if (config.train.post_validation)
    throw root.section("train").unexpected("post_validation", "false with replicas.strategy parameter_server");
  if (config.train.norms_every > 0)
    throw root.section("train").unexpected("norms_every", "0 with replicas.strategy parameter_server",
                                           "; no worker has weights before and behind an update");
}

/// M >= G >= R.
void check_groups(const Section& root, const Config& config) {
  const int replicas = config.replicas.count, groups = config.gradient_groups();
  const int micro_batches = config.train.micro_batches;
  if (replicas > micro_batches)
    throw root.section("replicas")
        .unexpected("count", concat("at most train.micro_batches, which is ", micro_batches),
                    "; every replica runs a part of the micro-batches: take more of these, or fewer replicas");
  if (groups < replicas || groups > micro_batches)
    throw root.section("train").unexpected(
        "gradient_groups",
        concat("an integer from ", replicas, " (replicas.count) to ", micro_batches, " (train.micro_batches)"),
        groups < replicas ? "; a group of micro-batches is not divided among replicas" : "");
  if (config.replicas.shard_optimizer && config.replicas.strategy != ReplicaStrategy::mirrored)
    throw root.section("replicas")
        .unexpected("shard_optimizer", concat("false with strategy ", to_string(config.replicas.strategy)),
                    "; there the optimizer's state is there once: leave it out");
  check_servers(root, config);
}

yaml::Value written(Config config) {
  config.train.gradient_groups = config.gradient_groups();
  return written_fields([&config](FieldVisitor& visit) { fields(visit, config); });
}

}  // namespace

bool WorkersConfig::on_cpus_alone() const {
  return std::all_of(devices.begin(), devices.end(), [](const std::string& device) { return device == "cpu"; });
}

std::int64_t CheckpointConfig::every_steps() const {
  return count_of(every, "");
}
std::int64_t CheckpointConfig::every_minutes() const {
  return count_of(every, "min");
}

void fields(FieldVisitor& visit, ReplicasConfig& replicas) {
  visit("count", value(replicas.count, at_least(1)), kFree,
        "How many; each runs a part of train.micro_batches. With the same train.gradient_groups the bits are the same "
        "for any number of them.");
  visit(
      "strategy", value(replicas.strategy), kFree,
      "mirrored: every process (every device) has the weights; gradients are summed over all of them. central_storage: "
      "weights and optimizer state are there once, in main memory; in one process. parameter_server: servers have "
      "them, and each replica, of one worker, updates them by itself.");
  visit("servers", value(replicas.servers, between(1, kMostServers)), kFree,
        "parameter_server: so many have the weights, a part each.");
  visit("max_staleness", value(replicas.max_staleness, at_least(0)), kFree,
        "parameter_server: how many updates of others an update may not know of; where it would be more, others wait. "
        "0: all replicas update together, to the bits of mirrored.");
  visit(
      "shard_optimizer", value(replicas.shard_optimizer), kFree,
      "mirrored: every process (device) keeps the optimizer's state of a part of the weights alone, and updates that.");
  visit("placement", value(replicas.placement), kFree,
        "Which workers are neighbours, on the same rank or host: those of one pipeline, or the same stage of all "
        "replicas.");
}

void fields(FieldVisitor& visit, WorkersConfig& workers) {
  visit(
      "per_rank", per_rank(workers), kFree,
      "Workers per MPI rank: auto (stages / virtual_stages workers, spread over the ranks in order), a number >= 1 for "
      "every rank, or a list with a number >= 1 for each rank.");
  visit("devices", list(workers.devices, device(), "at least one device, such as [cpu]"), kFree,
        "Where they compute: cpu | cuda | cuda:N. Worker w takes devices[w mod length].");
  visit("threads", value(workers.threads, between(1, kMostThreads)), kDecides,
        "Threads of each worker inside one operation. Part of the numerics, hence never derived from the machine.");
  visit("bind", value(workers.bind), kFree,
        "cores: each worker gets `threads` CPUs of its own, among those that the launcher, taskset or the container "
        "left to this process; where there are too few, a warning says so and nothing is bound. none: the kernel "
        "decides.");
  visit("readers", value(workers.readers, between(0, kMostReaders)), kFree,
        "Threads that read data ahead, in each process that reads; 0: data is read when it is wanted.");
  visit("read_ahead", value(workers.read_ahead, between(1, kMostReadAhead)), kFree,
        "Mini-batches that they are ahead at most.");
  visit(
      "memory_limit", memory_limit(workers), kFree,
      "Most bytes that a worker's tensors may take, such as 2GiB or 512MiB; a worker that needs more ends the job and "
      "says what for (exit code 1). none: no limit.");
}

void fields(FieldVisitor& visit, KernelsConfig& kernels) {
  visit("gemm", value(kernels.gemm), kDecides,
        "auto: matrix products take MKL's AVX-512 path on AMD CPUs too. default: what LibTorch does by itself.");
  visit("dropout", value(kernels.dropout), decides_since("torch"),
        "What dropout draws with. torch: LibTorch's generator of the device, which gives other masks on every kind of "
        "device. philox: Philox4x32-10, the same masks on all. But for torch on the CPU, attention with dropout then "
        "has its weights in memory.");
  visit("deterministic", value(kernels.deterministic), decides_since("true"),
        "Of devices: the same bits in every run; an operator that cannot ends the job. false: LibTorch's fastest "
        "kernels, some of which add in any order. CPUs are deterministic.");
  visit("float32_matmul", value(kernels.float32_matmul), decides_since("exact"),
        "Of devices: tf32 lets products and convolutions of float32 round their factors to TF32 (10 bits of mantissa "
        "for 23), where the card has it. exact: they do not.");
}

void fields(FieldVisitor& visit, CommConfig& comm) {
  visit("watchdog_s", value(comm.watchdog_s, at_least(1)), kFree,
        "Seconds that a worker may wait for another that makes no progress; then the job ends with exit code 4. "
        "Waiting for one that is slow but goes on from layer to layer is only a warning.");
  visit("startup_s", value(comm.startup_s, at_least(1)), kFree,
        "The same for a worker that has not begun, because it still loads its part of the model.");
  visit(
      "save_s", value(comm.save_s, at_least(1)), kFree,
      "The same for one that saves a checkpoint: so many seconds without a byte written or a file synced. A save that "
      "goes on may take as long as it likes.");
  visit(
      "device_buffers", value(comm.device_buffers), kFree,
      "Between ranks hand memory of devices to MPI, which must have been built for it, and says so when asked; false: "
      "through memory of the host.");
}

void fields(FieldVisitor& visit, Config& config) {
  const auto stem = [&config] { config.name = std::filesystem::path(config.root.location().file).stem().string(); };
  visit("name", value(config.name, file_name()).or_else(stem).with_example("reference"), kFree,
        "What the run is called in logs and reports. Default: this file's name without .yaml.");
  visit("seed", value(config.seed), kDecides,
        "Start of every random number (initial weights, dropout, order of samples). An integer >= 0.");
  visit("plugins", list(config.plugins, not_empty()), kFree,
        "Shared libraries, relative to the working folder, whose models, data readers, losses, activations, optimizers "
        "and learning-rate schedules this config may name; see docs/plugins.md.");
  visit("model",
        others(config.model,
               "type: gpt               # required\n"
               "layers: 4               # transformer blocks\n"
               "heads: 4                # attention heads; must divide width\n"
               "width: 128              # size of the hidden state\n"
               "context: 128            # longest sequence, in tokens\n"
               "vocab: 256              # number of tokens\n"
               "dropout: 0.0            # probability in [0, 1)\n"
               "tie_embeddings: true    # the output layer uses the token embedding's weight\n",
               "from"),
        {.decide = true, .free_below = "library"},
        "The model; required. `type` names the family (`lockstep list models`), which reads the other keys itself. "
        "`from: FOLDER` in its place takes type and keys from a Hugging Face folder's config.json.");
  visit("data",
        others(config.data,
               "type: text              # required\n"
               "train: \"data/train/*.txt\"   # a glob or a list of globs\n"
               "eval: \"data/eval/*.txt\"     # the same, for evaluation\n"),
        {.decide = true, .free_below = "eval"},
        "The samples; required. `type` names the reader, which reads the other keys itself.");
  visit("train", mapping(config.train).required(), kDecides,
        "What one optimizer step is, and how many there are; required.");
  visit("pipeline", mapping(config.pipeline).checked([&config](const Section& root) { check_cells(root, config); }),
        kFree, "How the model is cut and in which order the pieces work.");
  visit("workers", mapping(config.workers), kFree, "Who computes.");
  visit("kernels", mapping(config.kernels), kDecides, "Choices among ways to compute the same.");
  visit("replicas", mapping(config.replicas).checked([&config](const Section& root) { check_groups(root, config); }),
        kFree, "Copies of the whole pipeline, each with a part of the batch; see docs/replicas.md.");
  visit("checkpoint", keys_below([&config](FieldVisitor& below) { fields(below, config.checkpoint, config.train); }),
        kFree,
        "Saving the state of training, so that `lockstep train CONFIG --resume auto` can go on; see "
        "docs/checkpoints.md.");
  visit("comm", mapping(config.comm), kFree, "How workers talk.");
  visit("run_dir",
        value(config.run_dir, not_empty())
            .or_else([&config] { config.run_dir = "runs/" + config.name; })
            .with_example("runs/reference"),
        kFree, "The folder for everything that the run writes. Default: runs/<name>.");
}

Config read_config(const Section& root) {
  Config config;
  config.root = root;
  read_fields(root, [&config](FieldVisitor& visit) { fields(visit, config); });
  return config;
}

void check_config(const Config& config) {
  Config complete = config;
  if (complete.name.empty()) complete.name = "config";
  if (complete.run_dir.empty()) complete.run_dir = "runs/config";
  if (complete.train.loss.name.empty()) complete.train.loss.name = "of the heads";
  complete.model = complete.data = load_config_text("type: any", "Config");
  if (config.pipeline.recompute != Recompute::always && !config.pipeline.recompute_layers.empty())
    throw ConfigError({"Config", 0, 0}, "pipeline.recompute_layers",
                      concat("got [", join(config.pipeline.recompute_layers),
                             "] with recompute: ", name_of(config.pipeline.recompute), ", expected recompute: always"));
  read_config(yaml::root_section(std::make_shared<yaml::Value>(written(std::move(complete)))));
}

std::string resolved_yaml(const Config& config) {
  return yaml::to_text(written(config));
}

std::string optimizer_cost_key(const TrainConfig& train) {
  const OptimizerConfig& optimizer = train.optimizer;
  std::string key = optimizer.type_name();
  if (optimizer.momentum > 0) key += ", momentum";
  if (optimizer.centered) key += ", centered";
  if (!optimizer.plugin.name.empty()) key += ", " + one_line(optimizer.plugin.keys.to_yaml());
  if (train.ema.given) key += ", ema";
  return key;
}

}  // namespace lockstep
