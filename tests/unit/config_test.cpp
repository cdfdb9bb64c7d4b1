// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/config.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/text.hpp"
#include "tests/test.hpp"

namespace lockstep {
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

bool same(const Config& a, const Config& b) {
  return a.name == b.name && a.seed == b.seed && a.model.to_yaml() == b.model.to_yaml() &&
         a.data.to_yaml() == b.data.to_yaml() && a.train == b.train && a.pipeline == b.pipeline &&
         a.workers == b.workers && a.kernels == b.kernels && a.checkpoint == b.checkpoint && a.comm == b.comm &&
         a.run_dir == b.run_dir;
}

/// Reads what resolved_yaml wrote, under another file name so that nothing can come from it.
Config reread(const Config& config) {
  return read_config(load_config_text(resolved_yaml(config), "other.yaml"));
}

std::string thrown_by(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
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
  CHECK(reference.train == least.train);
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
  CHECK(resolved_yaml(config) == R"(name: job
seed: 1
model:
  type: mlp
  layers: 3
data:
  type: random
train:
  steps: 5
  batch: 8
  micro_batches: 1
  loss: mse
  precision: fp32
  clip_grad_norm: 0
  post_validation: false
  optimizer:
    type: adamw
    lr: 0.001
    betas: [0.9, 0.999]
    eps: 1e-08
    weight_decay: 0.01
    decay_norms_and_biases: true
    groups:
      - match: ["*.bias"]
        lr_scale: 1
        weight_decay: 0
  lr_schedule:
    type: constant
    warmup_steps: 0
  eval_every: 0
  eval_batch: 0
  eval_steps: 0
  freeze: []
  stop_on_nan: true
  log_every: 1
  stop_after: 0
pipeline:
  stages: 2
  virtual_stages: 1
  schedule: gpipe
  partition:
    by: params
  recompute: never
  in_flight_limit: 0
  placement: [0, 1]
workers:
  per_rank: auto
  devices: [cpu]
  threads: 1
  bind: none
  memory_limit: none
kernels:
  gemm: auto
checkpoint:
  every: never
  keep: 3
  best: none
  background: auto
comm:
  watchdog_s: 300
  startup_s: 600
  save_s: 3600
run_dir: runs/job
)");
}

TEST_CASE("defaults that depend on other keys are filled in", "[unit]") {
  CHECK(small().name == "job");
  CHECK(small("", "", {"name=other"}).run_dir == "runs/other");
  CHECK(small().train.optimizer.weight_decay == 0.01);
  CHECK(small("  optimizer: {type: sgd}\n").train.optimizer.weight_decay == 0.0);
  CHECK(small("  optimizer: {type: adam}\n").train.optimizer.weight_decay == 0.0);
  CHECK(small("  optimizer: {groups: [{match: [a]}]}\n").train.optimizer.groups[0].weight_decay == 0.01);
  CHECK(small("", "  stages: 3\n").pipeline.placement == std::vector<int>{0, 1, 2});
  CHECK(small("", "  partition: [4, 4]\n").pipeline.stages == 2);
  CHECK(small("", "  partition: {cut_before: [b, c]}\n").pipeline.stages == 3);
}

TEST_CASE("neutral values of keys that come later are accepted", "[unit]") {
  CHECK_NOTHROW(small("  stop_after: 0\n", "  virtual_stages: 1\n  recompute: never\n",
                      {"replicas={count: 1, strategy: mirrored}", "checkpoint={}", "comm.device_buffers=false"}));
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
  CHECK(small("", "  partition: layers\n").pipeline.partition.by == "layers");
  CHECK(small("", "  partition: {by: layers}\n").pipeline.partition.by == "layers");
  CHECK(small("", "  partition: {}\n").pipeline.partition.by == "params");
  CHECK(small("", "  partition: [1, 2]\n").pipeline.partition.counts == std::vector<int>{1, 2});
  CHECK(small("", "  partition: {cut_before: [b]}\n").pipeline.partition.cut_before == std::vector<std::string>{"b"});
}

TEST_CASE("every form of a schedule file and of recompute is understood", "[unit]") {
  for (const char* form : {"file:my.csv", "'file: my.csv'", "{file: my.csv}"}) {
    const PipelineConfig pipeline = small("", concat("  stages: 4\n  schedule: ", form, "\n")).pipeline;
    CHECK(pipeline.schedule == "file:my.csv");
    CHECK(pipeline.schedule_file == "my.csv");
    CHECK(pipeline.workers() == 0);  // the file will say it
  }
  CHECK(small("", "  recompute: always\n").pipeline.recompute == "always");
  CHECK(small("", "  recompute: [h.0, h.1]\n").pipeline.recompute_layers == std::vector<std::string>{"h.0", "h.1"});
  CHECK(small("", "  stages: 6\n  virtual_stages: 2\n").pipeline.placement == std::vector<int>{0, 1, 2});
}

TEST_CASE("workers per rank are auto, a number or a list", "[unit]") {
  CHECK(small("", "", {"workers.per_rank=auto"}).workers.per_rank.empty());
  CHECK(small("", "", {"workers.per_rank=3"}).workers.per_rank == std::vector<int>{3});
  CHECK(small("", "", {"workers.per_rank=[1, 2]"}).workers.per_rank == std::vector<int>{1, 2});
}

TEST_CASE("overrides replace values, create mappings and take any YAML", "[unit]") {
  const Section root = text_section("a: {b: 1}\nc: 2\nempty:\n", {"a.b=[x, y]", "c={d: {e: true}}", "new.deep.key=3",
                                                                  "empty.now=1", " c.f = 4 ", "c.f=5"});
  CHECK(root.section("a").get<std::vector<std::string>>("b") == std::vector<std::string>{"x", "y"});
  CHECK(root.section("c").section("d").get<bool>("e"));
  CHECK(root.section("c").get<int>("f") == 5);
  CHECK(root.section("new").section("deep").get<int>("key") == 3);
  CHECK(root.section("empty").get<int>("now") == 1);
  CHECK(root.section("c").location().file == "--set c={d: {e: true}}");
}

TEST_CASE("an override of an aliased value leaves the other uses alone", "[unit]") {
  const Section root = text_section("a: &shared {x: 1, y: {z: 1}}\nb: *shared\n", {"b.y.z=2"});
  CHECK(root.section("a").section("y").get<int>("z") == 1);
  CHECK(root.section("b").section("y").get<int>("z") == 2);
}

TEST_CASE("aliases and merge keys are expanded, own keys win", "[unit]") {
  const Section root =
      text_section("a: &one {x: 1, y: 1}\nb: &two {y: 2, z: 2}\nc: {<<: [*one, *two], x: 3}\nd: {'<<': 4}\n");
  CHECK(root.section("c").to_yaml() == "x: 3\ny: 1\nz: 2\n");
  CHECK(root.to_yaml() == text_section(root.to_yaml()).to_yaml());
  CHECK(root.section("d").get<int>("<<") == 4);
}

TEST_CASE("aliases that stand for more than memory holds are refused", "[unit]") {
  std::string bomb = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n";
  for (int level = 1; level < 12; ++level) {
    bomb += concat("a", level, ": &a", level, " [");
    for (int use = 0; use < 9; ++use) bomb += concat("*a", level - 1, use < 8 ? ", " : "]\n");
  }
  CHECK(thrown_by([&] { text_section(bomb); }).find("more than 100000 values") != std::string::npos);

  CHECK(thrown_by([&] {
          text_section("a: " + std::string(70, '[') + std::string(70, ']'));
        }).find("more than 64 levels") != std::string::npos);
  std::string deep = "a0: &a0 [[[[[[[[[[1]]]]]]]]]]\n";
  for (int level = 1; level < 8; ++level)
    deep += concat("a", level, ": &a", level, " [[[[[[[[[[*a", level - 1, "]]]]]]]]]]\n");
  CHECK(thrown_by([&] { text_section(deep); }).find("more than 64 levels") != std::string::npos);
  CHECK_THROWS_AS(text_section("a: " + std::string(100000, '[')), ConfigError);
}

TEST_CASE("numbers are read to the last bit and to the last integer", "[unit]") {
  const Section root = text_section(
      "least: -9223372036854775808\nmost: 9223372036854775807\nint: -2147483648\nplus: +5\nzero: -0\n"
      "numbers: [1, -2.5, .5, 3., 1e3, 1.0E-4, 0.1, 5e-324, 1.7976931348623157e308]\n");
  CHECK(root.get<std::int64_t>("least") == std::numeric_limits<std::int64_t>::min());
  CHECK(root.get<std::int64_t>("most") == std::numeric_limits<std::int64_t>::max());
  CHECK(root.get<int>("int") == std::numeric_limits<int>::min());
  CHECK(root.get<int>("plus") == 5);
  CHECK(root.get<int>("zero") == 0);
  CHECK(root.get<std::vector<double>>("numbers") ==
        std::vector<double>{1, -2.5, 0.5, 3, 1000, 1e-4, 0.1, 5e-324, std::numeric_limits<double>::max()});
  CHECK_THROWS_AS(root.get<int>("most"), ConfigError);
  CHECK_THROWS_AS(root.get<std::uint64_t>("least"), ConfigError);
}

TEST_CASE("texts keep what they are", "[unit]") {
  const Section root = text_section("a: 010\nb: yes\nc: 'it''s'\nd: |\n  two\n  lines\ne: x#y\nf: ''\n");
  CHECK(root.get<std::string>("a") == "010");
  CHECK(root.get<std::string>("b") == "yes");
  CHECK(root.get<std::string>("c") == "it's");
  CHECK(root.get<std::string>("d") == "two\nlines\n");
  CHECK(root.get<std::string>("e") == "x#y");
  CHECK(root.get<std::string>("f", "default").empty());
  CHECK(text_section(root.to_yaml()).to_yaml() == root.to_yaml());
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
  CHECK(refused([](Config& c) { c.train.precision = "fp16"; }) ==
        "Config: train.precision: got fp16, expected one of fp32, bf16");
  CHECK(refused([](Config& c) { c.train.optimizer.lr = std::numeric_limits<double>::quiet_NaN(); }) != "no error");
  CHECK(refused([](Config& c) { c.pipeline.virtual_stages = 2; }) ==
        "Config: pipeline.stages: got 1, expected a multiple of pipeline.virtual_stages, which is 2: 2");
  CHECK(refused([](Config& c) { c.workers.devices = {"gpu"}; }) ==
        "Config: workers.devices[0]: got gpu, expected cpu, cuda or cuda:N");
  CHECK(refused([](Config& c) { c.checkpoint.every = "often"; }) != "no error");
  CHECK(refused([](Config& c) { c.comm.watchdog_s = 0; }) ==
        "Config: comm.watchdog_s: got 0, expected an integer >= 1");
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
}

TEST_CASE("a message is one line of text, whatever it shows", "[unit]") {
  CHECK(one_line("a\nb\tc\x7f") == "a b c ");
  CHECK(one_line("gr\xc3\xb6\xc3\x9f"
                 "e \xe6\x97\xa5 \xf0\x9f\x98\x80") ==
        "gr\xc3\xb6\xc3\x9f"
        "e \xe6\x97\xa5 \xf0\x9f\x98\x80");
  CHECK(one_line("\xff\xfe"
                 "a") == "\\xff\\xfea");
  CHECK(one_line("gr\xf6\xdf"
                 "e") == "gr\\xf6\\xdfe");
  CHECK(one_line("\xc0\x80 \xed\xa0\x80") == "\\xc0\\x80 \\xed\\xa0\\x80");
  CHECK(one_line("abcdef", 3) == "abc...");
  CHECK(reason_of(std::runtime_error("[json.exception.out_of_range.403] key 'step' not found")) ==
        "key 'step' not found");
  CHECK(reason_of(std::runtime_error("plain")) == "plain");
  const std::filesystem::filesystem_error missing("cannot get file size", "no file",
                                                  std::make_error_code(std::errc::no_such_file_or_directory));
  CHECK(reason_of(missing) == "no file: No such file or directory");
}

TEST_CASE("a section of an absent key gives defaults and says where the key would be", "[unit]") {
  const Section absent = text_section("a: 1\n\nb: {c: 1}\n").section("b").section("d");
  CHECK(absent.get<int>("e", 7) == 7);
  CHECK(absent.keys().empty());
  CHECK_NOTHROW(absent.finish());
  CHECK(thrown_by([&] { absent.get<int>("e"); }) == "job.yaml:3:4: b.d.e: missing, expected an integer");
  CHECK(Section().get("x", 3, at_least(1)) == 3);
  CHECK(Section().to_yaml() == "{}\n");
}

TEST_CASE("finish accepts exactly the keys that were asked for", "[unit]") {
  const Section root = text_section("a: 1\nb: {c: 2}\nd: [1]\n");
  const Section copy = root;
  root.get<int>("a");
  root.has("b");
  CHECK(thrown_by([&] { copy.finish(); }) == "job.yaml:3:1: d: got an unknown key, expected one of a, b");
  copy.is_sequence("d");
  CHECK_NOTHROW(root.finish());
  CHECK(root.keys() == std::vector<std::string>{"a", "b", "d"});
}

TEST_CASE("rules are kept by values and by elements of lists", "[unit]") {
  const Section root = text_section("n: 5\nlist: [1, 2, 30]\nword: red\n");
  CHECK(root.get("n", between(1, 5)) == 5);
  CHECK(thrown_by([&] { root.get("n", above(5)); }) == "job.yaml:1:4: n: got 5, expected an integer > 5");
  CHECK(thrown_by([&] { root.list<int>("list", between(1, 9)); }) ==
        "job.yaml:2:14: list[2]: got 30, expected an integer from 1 to 9");
  const Rule<std::vector<int>> pair{"two integers", [](const std::vector<int>& list) { return list.size() == 2; }};
  CHECK(thrown_by([&] { root.get("list", pair); }) == "job.yaml:2:7: list: got [1, 2, 30], expected two integers");
  CHECK(thrown_by([&] {
          root.get("word", one_of({"rad", "green"}));
        }) == "job.yaml:3:7: word: got red, expected one of rad, green; did you mean 'rad'?");
}

TEST_CASE("long values are cut in errors, and errors are one line", "[unit]") {
  const Section root = text_section("a: " + std::string(500, 'x') + "\nb: \"1\\n2\"\n");
  CHECK(thrown_by([&] { root.get<int>("a"); }) ==
        "job.yaml:1:4: a: got " + std::string(57, 'x') + "..., expected an integer");
  CHECK(thrown_by([&] { root.get<int>("b"); }) ==
        "job.yaml:2:4: b: got \"1\\n2\", expected an integer; remove the quotes, they make it text");
}

TEST_CASE("byte order mark and Windows line ends do not move places", "[unit]") {
  const Section root = load_config_text(
      "\xEF\xBB\xBF"
      "a: 1\r\nb:\r\n  c: x\r\n",
      "job.yaml");
  CHECK(thrown_by([&] { root.section("b").get<int>("c"); }) == "job.yaml:3:6: b.c: got x, expected an integer");
}

TEST_CASE("the nearest name is found through slips, and nothing far is offered", "[unit]") {
  const std::vector<std::string> names = {"steps", "batch", "micro_batches", "lr", "adam", "adamw"};
  CHECK(nearest("setps", names) == "steps");
  CHECK(nearest("BATCH", names) == "batch");
  CHECK(nearest("micro-batches", names) == "micro_batches");
  CHECK(nearest("micro", names) == "micro_batches");
  CHECK(nearest("adamv", names) == "adamw");
  CHECK(nearest("lt", names) == "lr");
  CHECK_FALSE(nearest("colour", names));
  CHECK_FALSE(nearest("", names));
  CHECK_FALSE(nearest("x", {"y"}));
  CHECK_FALSE(nearest(std::string(100000, 'b'), names));
  CHECK(did_you_mean("setps", names) == "; did you mean 'steps'?");
  CHECK(did_you_mean("colour", names).empty());
}

TEST_CASE("a file that cannot be read is named, with the nearest one beside it", "[unit]") {
  const auto folder = std::filesystem::temp_directory_path() / concat("lockstep_config_test_", ::getpid());
  std::filesystem::create_directory(folder);
  const std::string path = (folder / "train.yaml").string();
  std::ofstream(path) << "a: 1\n";
  const std::string wrong = (folder / "tain.yaml").string();
  CHECK(load_config_file(path).get<int>("a") == 1);
  CHECK(thrown_by([&] { load_config_file(wrong); }) == wrong +
                                                           ": got no file (No such file or directory), expected a YAML "
                                                           "file that can be read; did you mean 'train.yaml'?");
  CHECK(thrown_by([&] { load_config_file(folder.string()); }) ==
        folder.string() + ": got a folder, expected a YAML file");
  std::ofstream(path, std::ios::trunc).flush();
  CHECK(thrown_by([&] { load_config_file(path); }) ==
        path + ":1:1: got an empty document, expected a mapping ('key: value' lines)");
  std::filesystem::remove_all(folder);
}

TEST_CASE("a section may be read from several threads", "[unit]") {
  const Section root = text_section("a: 1\nb: 2\nc: 3\n");
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 4; ++reader) {
    readers.emplace_back([root] {
      for (int round = 0; round < 200; ++round) {
        for (const std::string& key : root.keys()) root.get<int>(key);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  CHECK_NOTHROW(root.finish());
}

}  // namespace lockstep
