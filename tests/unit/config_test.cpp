// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/config.hpp"

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "runtime/base/text.hpp"
#include "tests/golden.hpp"
#include "tests/test.hpp"
#include "tests/unit/thrown_by.hpp"

namespace lockstep {
using test::thrown_by;
namespace {

std::string reference_path() {
  return (std::filesystem::path(__FILE__).parent_path() / "../../configs/reference.yaml").lexically_normal().string();
}

Section text_section(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return load_config_text(text, "job.yaml", overrides);
}

/// The smallest config, with lines for the sections `train` and `pipeline`, and overrides.
Config small(const std::string& train = "", const std::string& pipeline = "",
             const std::vector<std::string>& overrides = {}) {
  const std::string text = "model: {type: mlp}\ndata: {type: random}\ntrain:\n  steps: 5\n  batch: 8\n  loss: mse\n" +
                           train + (pipeline.empty() ? "" : "pipeline:\n" + pipeline);
  return read_config(text_section(text, overrides));
}

bool same(Config a, Config b) {
  // Who writes a config writes how many groups there are.
  for (Config* config : {&a, &b}) config->train.gradient_groups = config->gradient_groups();
  return a.name == b.name && a.seed == b.seed && a.model.to_yaml() == b.model.to_yaml() &&
         a.data.to_yaml() == b.data.to_yaml() && a.train == b.train && a.pipeline == b.pipeline &&
         a.workers == b.workers && a.replicas == b.replicas && a.kernels == b.kernels && a.checkpoint == b.checkpoint &&
         a.comm == b.comm && a.run_dir == b.run_dir;
}

/// Reads what resolved_yaml wrote, under another file name so that nothing can come from it.
Config reread(const Config& config) {
  return read_config(load_config_text(resolved_yaml(config), "other.yaml"));
}

}  // namespace

TEST_CASE("the reference config loads and shows the defaults", "[unit]") {
  const Config reference = read_config(load_config_file(reference_path()));
  CHECK(reference.name == "reference");
  CHECK(reference.run_dir == "runs/reference");
  CHECK(reference.model.get<std::string>("type") == "gpt");
  CHECK(reference.data.get<std::string>("type") == "text");

  // A config with only the required keys has the values that the reference shows.
  const Config least = read_config(load_config_text(
      "model: {type: gpt}\ndata: {type: text}\ntrain: {steps: 200, batch: 32, loss: sparse_categorical_cross_entropy}",
      "configs/reference.yaml"));
  CHECK(reference.name == least.name);
  CHECK(reference.seed == least.seed);
  TrainConfig filled = least.train;
  filled.gradient_groups = least.gradient_groups();
  CHECK(reference.train == filled);
  CHECK(reference.pipeline == least.pipeline);
  CHECK(reference.workers == least.workers);
  CHECK(reference.kernels == least.kernels);
  CHECK(reference.checkpoint == least.checkpoint);
  CHECK(reference.comm == least.comm);
  CHECK(reference.run_dir == least.run_dir);
}

TEST_CASE("the reference config names every key that can be resolved", "[unit]") {
  std::ifstream file(reference_path());
  std::stringstream text;
  text << file.rdbuf();
  const Config all[] = {small(), small("  optimizer: {type: sgd}\n  lr_schedule: {type: step, step_every: 3}\n"),
                        small("  optimizer: {groups: [{match: [a]}]}\n  lr_schedule: {type: cosine}\n"),
                        small("", "  partition: {cut_before: [b]}\n")};
  for (const Config& config : all) {
    std::istringstream lines(resolved_yaml(config));
    for (std::string line; std::getline(lines, line);) {
      const auto begin = line.find_first_not_of(" -");
      const std::string key = line.substr(begin, line.find(':') - begin) + ":";
      INFO(key);
      CHECK(text.str().find(key) != std::string::npos);
    }
  }
}

TEST_CASE("a resolved config reads back as the same config", "[unit]") {
  const std::vector<Config> configs = {
      read_config(load_config_file(reference_path())),
      small(),
      small("  optimizer: {type: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 1.0e-300}\n"),
      small("  optimizer: {type: adam, betas: [0.1, 0.3333333333333333], eps: 1e-12}\n"),
      small("  optimizer: {type: rmsprop, alpha: 0.5, centered: true, momentum: 0.1}\n  ema: {}\n"),
      small("  optimizer: {type: adagrad, lr_decay: 0.5, initial_accumulator_value: 1}\n  ema: {decay: 0}\n"),
      small("  optimizer: {type: adafactor, eps: [0.25, 0], beta2_decay: -1, d: 2}\n"),
      small("  optimizer: {type: lion, lr: 2, momentum: none, betas: 3, beta: [1, {a: b}], more: {deep: '1'}}\n"
            "  lr_schedule: {type: mine, warmup_steps: 3, min_lr: low, sharpness: 7}\n"),
      small("  lr_schedule: {type: plateau, factor: 0.5, patience: 0, threshold: 0, cooldown: 3, min_lr: 1e-5}\n"
            "  eval_every: 2\n"),
      small("  optimizer:\n    groups:\n    - {match: ['*.bias', \"a: b\"], lr_scale: 2}\n    - {match: [x], "
            "weight_decay: 0}\n"),
      small("  lr_schedule: {type: cosine, warmup_steps: 2, min_lr: 1e-4}\n  eval_every: 3\n  freeze: [wte.*, '1']\n"),
      small("  lr_schedule: {type: step, step_every: 3, step_factor: 0.5}\n  stop_on_nan: false\n"),
      small("", "  partition: [1, 2, 3]\n  placement: [2, 0, 1]\n  schedule: 1f1b\n"),
      small("", "  partition: {cut_before: [h.1, 'h 2']}\n"),
      small("  clip_grad_norm: 1\n  post_validation: true\n",
            "  stages: 4\n  virtual_stages: 2\n  placement: [1, 0]\n  recompute: except_last\n  schedule: zbv\n"),
      small("",
            "  stages: 4\n  recompute: ['h.*', a]\n  in_flight_limit: 1000\n  costs: {forward_ms: 2, input_grad_ms: "
            "[1, 2, 3, 4], activation_bytes: 7, latency_us: 5, gigabytes_per_s: 6.5}\n"),
      small("", "  stages: 4\n  schedule: {file: 'a b.csv'}\n  placement: [1, 0]\n"),
      small("", "  partition: layers\n  stages: 3\n"),
      small("", "  partition: auto\n  stages: 3\n"),
      small("  optimizer: {type: sgd, momentum: 0.5, dampening: 0.25, decay_norms_and_biases: false}\n"
            "  lr_schedule: {type: linear, decay_steps: 9}\n  eval_batch: 3\n  eval_steps: 2\n  log_every: 7\n"
            "  clip_grad_norm: 0.5\n  precision: bf16\n  micro_batches: 3\n",
            "", {"comm.watchdog_s=5", "comm.startup_s=7", "comm.save_s=9", "workers.memory_limit=1.5GiB"}),
      small("", "", {"workers={per_rank: 2, devices: [cpu, cuda, 'cuda:1'], threads: 3}", "seed=18446744073709551615"}),
      small("  eval_every: 5\n  stop_after: 7\n", "",
            {"checkpoint={every: 10, keep: 1, best: eval_loss, background: never}"}),
      small("", "", {"checkpoint.every=15min"}),
      small("  micro_batches: 8\n  gradient_groups: 4\n", "",
            {"replicas={count: 3, shard_optimizer: true, placement: replicas_first}"}),
      small("  micro_batches: 8\n", "", {"replicas={count: 2, strategy: central_storage}"}),
      small("  micro_batches: 8\n", "",
            {"replicas={count: 2, strategy: parameter_server, servers: 3, max_staleness: 0}"}),
      small("", "", {"workers.per_rank=[1, 2]", "name='null'", "run_dir='/tmp/a b#c'", "kernels.gemm=default"}),
      small("", "",
            {"model.list=[1, [2, {a: b}], [[]], {}]", "model.maps=[{a: 1, b: {c: ~}}, {}]", "model.text='01'",
             "model.\"odd: key\"=3", "data.empty=''", "data.lines=\"a\\nb\\t\\x01\"", "data.glob='*.txt'"})};
  for (const Config& config : configs) {
    INFO(resolved_yaml(config));
    CHECK(same(config, reread(config)));
    CHECK(resolved_yaml(config) == resolved_yaml(reread(config)));
  }
}

TEST_CASE("a resolved config is complete and in the schema's order", "[unit]") {
  const Config config =
      small("  optimizer: {groups: [{match: ['*.bias'], weight_decay: 0}]}\n", "  stages: 2\n", {"model.layers=3"});
  test::check_golden_file("tests/golden/config/resolved.yaml", resolved_yaml(config));
}

TEST_CASE("defaults that depend on other keys are filled in", "[unit]") {
  CHECK(small().name == "job");
  CHECK(small("", "", {"name=other"}).run_dir == "runs/other");
  CHECK(small().train.optimizer.weight_decay == 0.01);
  CHECK(small("  optimizer: {type: sgd}\n").train.optimizer.weight_decay == 0.0);
  CHECK(small("  optimizer: {type: adam}\n").train.optimizer.weight_decay == 0.0);
  for (const char* type : {"rmsprop", "adagrad", "rowwise_adagrad", "adafactor"}) {
    CHECK(small(concat("  optimizer: {type: ", type, "}\n")).train.optimizer.weight_decay == 0.0);
    CHECK(small(concat("  optimizer: {type: ", type, "}\n")).train.optimizer.lr == 0.01);
  }
  CHECK(small("  optimizer: {type: adagrad}\n").train.optimizer.eps == 1e-10);
  CHECK(small("  optimizer: {type: rmsprop}\n").train.optimizer.eps == 1e-8);
  CHECK(small("  optimizer: {groups: [{match: [a]}]}\n").train.optimizer.groups[0].weight_decay == 0.01);
  CHECK(small("", "  stages: 3\n").pipeline.placement == std::vector<int>{0, 1, 2});
  CHECK(small("", "  partition: [4, 4]\n").pipeline.stages == 2);
  CHECK(small("", "  partition: {cut_before: [b, c]}\n").pipeline.stages == 3);
}

TEST_CASE("neutral values are accepted", "[unit]") {
  CHECK_NOTHROW(small("  stop_after: 0\n", "  virtual_stages: 1\n  recompute: never\n",
                      {"replicas={count: 1, strategy: mirrored}", "checkpoint={}", "comm.device_buffers=false"}));
}

TEST_CASE("there are as many gradient groups as replicas, unless the config says more", "[unit]") {
  const auto groups = [](const std::vector<std::string>& overrides) {
    return small("  micro_batches: 6\n", "", overrides).gradient_groups();
  };
  CHECK(groups({}) == 1);
  CHECK(groups({"replicas.count=3"}) == 3);
  CHECK(groups({"replicas.count=3", "train.gradient_groups=5"}) == 5);
  CHECK(groups({"train.gradient_groups=6"}) == 6);
}

TEST_CASE("checkpoints are due by steps, by minutes, at the end or never", "[unit]") {
  const auto every = [](const std::string& text) { return small("", "", {"checkpoint.every=" + text}).checkpoint; };
  CHECK(every("100").every_steps() == 100);
  CHECK(every("100").every_minutes() == 0);
  CHECK(every("10min").every_steps() == 0);
  CHECK(every("10min").every_minutes() == 10);
  CHECK(every("end").on());
  CHECK(every("end").every_steps() + every("end").every_minutes() == 0);
  CHECK_FALSE(small().checkpoint.on());
  CHECK(thrown_by([] {
          small("  eval_every: 4\n", "", {"checkpoint={every: 10, best: eval_loss}"});
        }).find("checkpoint.every (10) is no multiple of train.eval_every (4)") != std::string::npos);
}

TEST_CASE("every form of a partition is understood", "[unit]") {
  CHECK(small("", "  partition: layers\n").pipeline.partition.by == CutBy::layers);
  CHECK(small("", "  partition: {by: layers}\n").pipeline.partition.by == CutBy::layers);
  CHECK(small("", "  partition: {}\n").pipeline.partition.by == CutBy::params);
  CHECK(small("", "  partition: [1, 2]\n").pipeline.partition.counts == std::vector<int>{1, 2});
  CHECK(small("", "  partition: {cut_before: [b]}\n").pipeline.partition.cut_before == std::vector<std::string>{"b"});
}

TEST_CASE("every form of a schedule file and of recompute is understood", "[unit]") {
  for (const char* form : {"file:my.csv", "'file: my.csv'", "{file: my.csv}"}) {
    const PipelineConfig pipeline = small("", concat("  stages: 4\n  schedule: ", form, "\n")).pipeline;
    CHECK(pipeline.schedule == "file:my.csv");
    CHECK(pipeline.schedule_file() == "my.csv");
    CHECK(pipeline.workers() == 0);  // the file will say it
  }
  CHECK(small("", "  recompute: always\n").pipeline.recompute == Recompute::always);
  CHECK(small("", "  recompute: [h.0, h.1]\n").pipeline.recompute_layers == std::vector<std::string>{"h.0", "h.1"});
  CHECK(small("", "  stages: 6\n  virtual_stages: 2\n").pipeline.placement == std::vector<int>{0, 1, 2});
}

TEST_CASE("workers per rank are auto, a number or a list", "[unit]") {
  CHECK(small("", "", {"workers.per_rank=auto"}).workers.per_rank.empty());
  CHECK(small("", "", {"workers.per_rank=3"}).workers.per_rank == std::vector<int>{3});
  CHECK(small("", "", {"workers.per_rank=[1, 2]"}).workers.per_rank == std::vector<int>{1, 2});
}

TEST_CASE("a config that a program made keeps the same rules", "[unit]") {
  Config config;
  config.train.steps = 5;
  config.train.batch = 4;
  check_config(config);  // no model, data, name or loss: those are not its business
  const auto refused = [&](const std::function<void(Config&)>& change) {
    Config changed = config;
    change(changed);
    return thrown_by([&] { check_config(changed); });
  };
  CHECK(refused([](Config& c) { c.train.micro_batches = 5; }) ==
        "Config: train.micro_batches: got 5, expected at most train.batch, which is 4");
  CHECK(refused([](Config& c) { c.train.steps = 0; }) == "Config: train.steps: got 0, expected an integer >= 1");
  CHECK(refused([](Config& c) { c.train.precision = static_cast<Precision>(3); }) ==
        "Config: train.precision: got 3, expected one of fp32, bf16, fp64");
  CHECK(refused([](Config& c) { c.train.optimizer.lr = std::numeric_limits<double>::quiet_NaN(); }) != "no error");
  CHECK(refused([](Config& c) { c.pipeline.virtual_stages = 2; }) ==
        "Config: pipeline.stages: got 1, expected a multiple of pipeline.virtual_stages, which is 2: 2");
  CHECK(refused([](Config& c) { c.workers.devices = {"gpu"}; }) ==
        "Config: workers.devices[0]: got gpu, expected cpu, cuda or cuda:N");
  CHECK(refused([](Config& c) { c.workers.devices.clear(); }) ==
        "Config: workers.devices: got [], expected at least one device, such as [cpu]");
  CHECK(refused([](Config& c) { c.train.optimizer.type = static_cast<OptimizerType>(9); }) ==
        "Config: train.optimizer.type: got 9, expected one of sgd, adam, adamw, rmsprop, adagrad, rowwise_adagrad, "
        "adafactor");
  CHECK(refused([](Config& c) { c.train.lr_schedule.type = static_cast<LrScheduleType>(-1); }) ==
        "Config: train.lr_schedule.type: got -1, expected one of constant, linear, cosine, step, wsd, one_cycle, "
        "plateau");
  CHECK(
      refused([](Config& c) { c.train.optimizer.momentum = 0.9; }) ==
      "Config: train.optimizer.momentum: got 0.9, expected no momentum with type adamw; it belongs to sgd and rmsprop: "
      "remove it");
  CHECK(refused([](Config& c) {
          c.train.optimizer.groups = {{{"*.bias"}, -1.0, {}}};
        }) == "Config: train.optimizer.groups[0].lr_scale: got -1, expected a number >= 0");
  CHECK(refused([](Config& c) { c.pipeline.schedule.clear(); }) ==
        "Config: pipeline.schedule: got \"\", expected a non-empty string");
  CHECK(refused([](Config& c) { c.pipeline.virtual_stages = 0; }) ==
        "Config: pipeline.virtual_stages: got 0, expected an integer from 1 to 4096");
  CHECK(refused([](Config& c) { c.pipeline.recompute_layers = {"h.*"}; }) ==
        "Config: pipeline.recompute_layers: got [h.*] with recompute: never, expected recompute: always");
  CHECK(refused([](Config& c) { c.workers.memory_limit = -1; }) ==
        "Config: workers.memory_limit: got -1, expected a size such as 2GiB, 512MiB or 1.5GB, or none");
  CHECK(refused([](Config& c) { c.checkpoint.every = "often"; }) != "no error");
  CHECK(refused([](Config& c) { c.comm.watchdog_s = 0; }) ==
        "Config: comm.watchdog_s: got 0, expected an integer >= 1");
}

TEST_CASE("what decides bits is known of every key, also of those of models and readers", "[unit]") {
  for (const char* key : {"seed", "model.width", "data.train", "data.type", "train.batch", "train.optimizer.groups",
                          "train.lr_schedule.decay_steps", "workers.threads", "kernels.gemm", "kernels.dropout",
                          "kernels.deterministic", "kernels.float32_matmul"})
    CHECK(decides_bits(key));
  for (const char* key :
       {"name", "run_dir", "model.library", "data.eval", "data.eval_samples", "train.steps", "train.eval_every",
        "pipeline.stages", "pipeline.costs.forward_ms", "workers.devices", "checkpoint.every", "comm.save_s"})
    CHECK_FALSE(decides_bits(key));
  CHECK(value_before("train.post_validation") == "false");
  CHECK(value_before("kernels.dropout") == "torch");
  CHECK(value_before("kernels.deterministic") == "true");
  CHECK(value_before("kernels.float32_matmul") == "exact");
  CHECK_FALSE(value_before("train.batch"));
}

TEST_CASE("a key that other tools call so, or that stands elsewhere, is named with its place", "[unit]") {
  const auto hint = [](const std::string& section, const std::string& line) {
    const std::string text = "model: {type: mlp}\ndata: {type: random}\ntrain: {steps: 5, batch: 8, loss: mse}\n";
    const std::string said = thrown_by([&] { read_config(text_section(text, {section + line})); });
    const std::size_t at = said.find("; did you mean ");
    return at == std::string::npos ? "" : said.substr(at);
  };
  CHECK(hint("train.", "batch_size=8") == "; did you mean 'batch'?");
  CHECK(hint("train.", "Max-Steps=8") == "; did you mean 'steps'?");
  CHECK(hint("train.", "gradient_accumulation_steps=8") == "; did you mean 'micro_batches'?");
  CHECK(hint("train.", "learning_rate=8") == "; did you mean train.optimizer.lr?");
  CHECK(hint("train.", "lr=8") == "; did you mean train.optimizer.lr?");
  CHECK(hint("train.", "warmup_steps=8") == "; did you mean train.lr_schedule.warmup_steps?");
  CHECK(hint("", "batch_size=8") == "; did you mean train.batch?");
  CHECK(hint("", "output_dir=8") == "; did you mean 'run_dir'?");
  CHECK(hint("train.optimizer.", "learning_rate=8") == "; did you mean 'lr'?");
  CHECK(hint("checkpoint.", "save_steps=8") == "; did you mean 'every'?");
  CHECK(hint("train.", "stesp=8") == "; did you mean 'steps'?");
  CHECK(hint("train.", "vocab_size=8") == "; did you mean model.vocab?");
  CHECK(hint("train.", "wibble=8") == "");
  CHECK(nearest("cross_entropy", {"mean_squared_error", "sparse_categorical_cross_entropy"}) ==
        "sparse_categorical_cross_entropy");
  CHECK(nearest("num_layers", {"type", "layers"}) == "layers");
  CHECK_FALSE(nearest("num_layers", {"type", "width"}));
  CHECK(nearest("in_features", {"type", "inputs", "width"}) == "inputs");
  CHECK(nearest("in_features", {"type", "inputs", "in"}) == "in");  // of a layer in a list
}

TEST_CASE("what decides the cost of an update has one key", "[unit]") {
  TrainConfig train;
  CHECK(optimizer_cost_key(train) == "adamw");
  train.optimizer.type = OptimizerType::rmsprop;
  train.optimizer.momentum = 0.9;
  train.optimizer.centered = true;
  train.ema.given = true;
  CHECK(optimizer_cost_key(train) == "rmsprop, momentum, centered, ema");
}

}  // namespace lockstep
