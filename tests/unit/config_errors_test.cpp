// SPDX-License-Identifier: Apache-2.0
//
// What a user reads when a config is wrong: the whole text, for every trap. To change a message, change it here first.
// Longer than other files because it is one table, a trap a row: whoever looks for a message looks in one place.
#include <algorithm>
#include <string>
#include <vector>

#include "runtime/config/config.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

constexpr const char* kSmall =
    "name: small\n"
    "seed: 7\n"
    "model:\n"
    "  type: gpt\n"
    "  layers: 4\n"
    "data:\n"
    "  type: text\n"
    "train:\n"
    "  steps: 200\n"
    "  batch: 32\n"
    "  micro_batches: 8\n"
    "  loss: mse\n"
    "  optimizer:\n"
    "    type: adamw\n"
    "    lr: 0.001\n"
    "  lr_schedule:\n"
    "    type: cosine\n"
    "pipeline:\n"
    "  stages: 4\n"
    "  schedule: 1f1b\n"
    "workers:\n"
    "  threads: 1\n"
    "comm:\n"
    "  watchdog_s: 300\n";

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    read_config(load_config_text(text, "job.yaml", overrides));
  } catch (const ConfigError& error) {
    CHECK(error.exit_code() == ExitCode::user_input);
    return error.what();
  }
  return "no error";
}

/// {train} stands for the keys of `train`, {all} for those of the whole, as the reference has them.
std::string with_keys(std::string message) {
  const Section all = load_config_file(LOCKSTEP_SOURCE_DIR "/configs/reference.yaml");
  for (const std::string section : {"train", "comm", "workers", "all"}) {
    const std::string mark = "{" + section + "}";
    std::vector<std::string> keys = (section == "all" ? all : all.section(section)).keys();
    // A mapping that is off by default is a comment there.
    if (section == "train") {
      const auto at = keys.insert(std::find(keys.begin(), keys.end(), "eval_every"), "ema");
      keys.insert(at + 1, "early_stopping");
    }
    if (const auto at = message.find(mark); at != std::string::npos) message.replace(at, mark.size(), join(keys));
  }
  return message;
}

/// kSmall with the first `replaced` turned into `with`.
struct BadEdit {
  const char* name;
  const char* replaced;
  const char* with;
  const char* message;
};

struct BadText {
  const char* text;
  const char* message;
};

// clang-format off
const BadEdit kBadEdits[] = {
  {"unknown key at the top",
   "seed: 7", "sead: 7",
   "job.yaml:2:1: sead: got an unknown key, expected one of {all}; did you mean 'seed'?"},
  {"unknown key, nothing near",
   "threads: 1", "threads: 1\n  colour: red",
   "job.yaml:23:3: workers.colour: got an unknown key, expected one of {workers}"},
  {"unknown section",
   "comm:", "com:",
   "job.yaml:23:1: com: got an unknown key, expected one of {all}; did you mean 'comm'?"},
  {"unknown key with a nearest name",
   "watchdog_s: 300", "watchdog: 300",
   "job.yaml:24:3: comm.watchdog: got an unknown key, expected one of {comm}; did you mean 'watchdog_s'?"},
  {"unknown key in a section of its own",
   "micro_batches: 8", "micro_batch: 8",
   "job.yaml:11:3: train.micro_batch: got an unknown key, expected one of {train}; did you mean 'micro_batches'?"},
  {"unknown key, swapped letters",
   "loss: mse", "loss: mse\n  frezee: []",
   "job.yaml:13:3: train.frezee: got an unknown key, expected one of {train}; did you mean 'freeze'?"},
  {"missing key",
   "  steps: 200\n", "",
   "job.yaml:9:3: train.steps: missing, expected an integer >= 1"},
  {"misspelled required key",
   "steps: 200", "stesp: 200",
   "job.yaml:9:3: train.steps: missing, expected an integer >= 1; is 'stesp' here a misspelling of it?"},
  {"missing section",
   "data:\n  type: text\n", "",
   "job.yaml:1:1: data: missing, expected a mapping"},
  {"missing type",
   "model:\n  type: gpt\n", "model:\n",
   "job.yaml:4:3: model.type: missing, expected a non-empty string"},
  {"section that is text",
   "data:\n  type: text", "data: text",
   "job.yaml:6:7: data: got text, expected a mapping"},
  {"section that is a list",
   "data:\n  type: text", "data: [text]",
   "job.yaml:6:7: data: got [text], expected a mapping"},
  {"section without a value",
   "comm:\n  watchdog_s: 300", "comm:",
   "job.yaml:23:1: comm: got nothing, expected a mapping"},
  {"type that is a number of things",
   "model:\n  type: gpt", "model:\n  type: [gpt, lstm]",
   "job.yaml:4:9: model.type: got [gpt, lstm], expected a non-empty string"},
  {"null",
   "steps: 200", "steps:",
   "job.yaml:9:3: train.steps: got nothing, expected an integer >= 1"},
  {"null that is written",
   "steps: 200", "steps: ~",
   "job.yaml:9:10: train.steps: got nothing, expected an integer >= 1"},
  {"null in front of a blank line",
   "seed: 7", "seed:\n\n",
   "job.yaml:2:1: seed: got nothing, expected an integer >= 0"},
  {"octal",
   "batch: 32", "batch: 010",
   "job.yaml:10:10: train.batch: got 010, expected an integer >= 1; remove the leading zeros (some readers take them as octal)"},
  {"exponent",
   "batch: 32", "batch: 1e3",
   "job.yaml:10:10: train.batch: got 1e3, expected an integer >= 1; write the digits out, without point or exponent"},
  {"underscore",
   "batch: 32", "batch: 1_000",
   "job.yaml:10:10: train.batch: got 1_000, expected an integer >= 1; remove the underscores"},
  {"hexadecimal",
   "batch: 32", "batch: 0x20",
   "job.yaml:10:10: train.batch: got 0x20, expected an integer >= 1; write it in decimal"},
  {"fraction",
   "batch: 32", "batch: 32.0",
   "job.yaml:10:10: train.batch: got 32.0, expected an integer >= 1; write the digits out, without point or exponent"},
  {"quoted number",
   "batch: 32", "batch: \"32\"",
   "job.yaml:10:10: train.batch: got \"32\", expected an integer >= 1; remove the quotes, they make it text"},
  {"text for a number",
   "batch: 32", "batch: many",
   "job.yaml:10:10: train.batch: got many, expected an integer >= 1"},
  {"negative",
   "batch: 32", "batch: -3",
   "job.yaml:10:10: train.batch: got -3, expected an integer >= 1"},
  {"zero",
   "steps: 200", "steps: 0",
   "job.yaml:9:10: train.steps: got 0, expected an integer >= 1"},
  {"overflow of 32 bits",
   "micro_batches: 8", "micro_batches: 3000000000",
   "job.yaml:11:18: train.micro_batches: got 3000000000, expected an integer >= 1; the largest is 2147483647"},
  {"overflow of 64 bits",
   "steps: 200", "steps: 99999999999999999999",
   "job.yaml:9:10: train.steps: got 99999999999999999999, expected an integer >= 1; the largest is 9223372036854775807"},
  {"negative seed",
   "seed: 7", "seed: -7",
   "job.yaml:2:7: seed: got -7, expected an integer >= 0"},
  {"NaN",
   "lr: 0.001", "lr: .nan",
   "job.yaml:15:9: train.optimizer.lr: got .nan, expected a number >= 0; it must be finite"},
  {"infinity",
   "lr: 0.001", "lr: -.inf",
   "job.yaml:15:9: train.optimizer.lr: got -.inf, expected a number >= 0; it must be finite"},
  {"number too large",
   "lr: 0.001", "lr: 1e999",
   "job.yaml:15:9: train.optimizer.lr: got 1e999, expected a number >= 0; a 64-bit floating-point number cannot hold it"},
  {"number with an underscore",
   "lr: 0.001", "lr: 0.000_1",
   "job.yaml:15:9: train.optimizer.lr: got 0.000_1, expected a number >= 0; remove the underscores"},
  {"number with a leading zero",
   "lr: 0.001", "lr: 00.1",
   "job.yaml:15:9: train.optimizer.lr: got 00.1, expected a number >= 0; remove the leading zeros (some readers take them as octal)"},
  {"negative learning rate",
   "lr: 0.001", "lr: -0.1",
   "job.yaml:15:9: train.optimizer.lr: got -0.1, expected a number >= 0"},
  {"yes for a boolean",
   "loss: mse", "loss: mse\n  stop_on_nan: yes",
   "job.yaml:13:16: train.stop_on_nan: got yes, expected true or false; write true"},
  {"Off for a boolean",
   "loss: mse", "loss: mse\n  stop_on_nan: Off",
   "job.yaml:13:16: train.stop_on_nan: got Off, expected true or false; write false"},
  {"text for a boolean",
   "loss: mse", "loss: mse\n  stop_on_nan: maybe",
   "job.yaml:13:16: train.stop_on_nan: got maybe, expected true or false"},
  {"more micro-batches than samples",
   "batch: 32", "batch: 4",
   "job.yaml:11:18: train.micro_batches: got 8, expected at most train.batch, which is 4"},
  {"empty name",
   "name: small", "name: \"\"",
   "job.yaml:1:7: name: got \"\", expected a name that can be a folder (not empty, no '/')"},
  {"name with a slash",
   "name: small", "name: a/b",
   "job.yaml:1:7: name: got a/b, expected a name that can be a folder (not empty, no '/')"},
  {"a type that no plug-in can have",
   "type: adamw", "type: 3",
   "job.yaml:14:11: train.optimizer.type: got 3, expected one of sgd, adam, adamw, rmsprop, adagrad, rowwise_adagrad, adafactor"},
  {"choice in capitals",
   "loss: mse", "loss: mse\n  precision: FP32",
   "job.yaml:13:14: train.precision: got FP32, expected one of fp32, bf16, fp64; did you mean 'fp32'?"},
  {"key of another optimizer",
   "type: adamw", "type: adamw\n    momentum: 0.9",
   "job.yaml:15:15: train.optimizer.momentum: got 0.9, expected no momentum with type adamw; it belongs to sgd and rmsprop: remove it"},
  {"betas for sgd",
   "type: adamw", "type: sgd\n    betas: [0.9, 0.99]",
   "job.yaml:15:12: train.optimizer.betas: got [0.9, 0.99], expected no betas with type sgd; it belongs to adam and adamw: remove it"},
  {"one beta",
   "lr: 0.001", "lr: 0.001\n    betas: [0.9]",
   "job.yaml:16:12: train.optimizer.betas: got [0.9], expected two numbers >= 0 and < 1, such as [0.9, 0.999]"},
  {"beta of 1",
   "lr: 0.001", "lr: 0.001\n    betas: [0.9, 1]",
   "job.yaml:16:18: train.optimizer.betas[1]: got 1, expected a number >= 0 and < 1"},
  {"nesterov without momentum",
   "type: adamw", "type: sgd\n    nesterov: true",
   "job.yaml:15:15: train.optimizer.nesterov: got true, expected false; Nesterov's method needs a momentum above 0 and no dampening: set these, or leave it out"},
  {"eps of adafactor whose square is 0 in float32",
   "type: adamw", "type: adafactor\n    eps: [1.0e-30, 1.0e-3]",
   "job.yaml:15:10: train.optimizer.eps: got [1.0e-30, 1.0e-3], expected a first number from 1e-22 on; its square is 0 in "
   "float32 else, and a gradient of 0 would be divided by it, which gives NaN; the usual values are [1.0e-7, 1.0e-3]"},
  {"one eps for adafactor",
   "type: adamw", "type: adafactor\n    eps: 1.0e-8",
   "job.yaml:15:10: train.optimizer.eps: got 1.0e-8, expected two numbers >= 0, such as [1.0e-7, 1.0e-3]"},
  {"an average that never moves",
   "loss: mse", "loss: mse\n  ema: {decay: 1}",
   "job.yaml:13:16: train.ema.decay: got 1, expected a number >= 0 and < 1"},
  {"plateau without evaluations",
   "type: cosine", "type: plateau",
   "job.yaml:9:3: train.eval_every: missing, expected an integer >= 1 with lr_schedule.type plateau; the learning rate follows the evaluation loss"},
  {"group without patterns",
   "lr: 0.001", "lr: 0.001\n    groups: [{lr_scale: 2}]",
   "job.yaml:16:14: train.optimizer.groups[0].match: missing, expected a list"},
  {"unknown key in a group",
   "lr: 0.001", "lr: 0.001\n    groups:\n    - match: [\"*.bias\"]\n      lr_scal: 2",
   "job.yaml:18:7: train.optimizer.groups[0].lr_scal: got an unknown key, expected one of match, lr_scale, weight_decay; did you mean 'lr_scale'?"},
  {"group that is text",
   "lr: 0.001", "lr: 0.001\n    groups: [bias]",
   "job.yaml:16:14: train.optimizer.groups[0]: got bias, expected a mapping"},
  {"key of another learning-rate schedule",
   "type: cosine", "type: constant\n    min_lr: 0.1",
   "job.yaml:18:13: train.lr_schedule.min_lr: got 0.1, expected no min_lr with type constant; it belongs to linear, cosine, wsd and plateau: remove it"},
  {"step schedule without its interval",
   "type: cosine", "type: step",
   "job.yaml:17:5: train.lr_schedule.step_every: missing, expected an integer >= 1"},
  {"list expected",
   "loss: mse", "loss: mse\n  freeze: wte",
   "job.yaml:13:11: train.freeze: got wte, expected a list; write [wte]"},
  {"partition of another length",
   "stages: 4", "stages: 4\n  partition: [1, 2]",
   "job.yaml:20:14: pipeline.partition: got 2 stages, expected 4 as pipeline.stages says; change one of the two"},
  {"partition with an empty stage",
   "stages: 4", "stages: 4\n  partition: [1, 0, 1, 1]",
   "job.yaml:20:18: pipeline.partition[1]: got 0, expected an integer >= 1"},
  {"partition by something",
   "stages: 4", "stages: 4\n  partition: parms",
   "job.yaml:20:14: pipeline.partition: got parms, expected one of layers, params, time, memory, block, auto; did you mean 'params'?"},
  {"cuts of another number",
   "stages: 4", "stages: 4\n  partition: {cut_before: [h.1]}",
   "job.yaml:20:14: pipeline.partition: got 2 stages, expected 4 as pipeline.stages says; change one of the two"},
  {"the same cut twice",
   "stages: 4", "stages: 4\n  partition: {cut_before: [h.1, h.2, h.1]}",
   "job.yaml:20:27: pipeline.partition.cut_before: got [h.1, h.2, h.1], expected each layer once; 'h.1' is there twice"},
  {"two ways to cut",
   "stages: 4", "stages: 4\n  partition: {by: layers, cut_before: [h.1]}",
   "job.yaml:20:39: pipeline.partition.cut_before: got [h.1], expected either by or cut_before; remove one of them"},
  {"partition without a value",
   "stages: 4", "stages: 4\n  partition:",
   "job.yaml:20:3: pipeline.partition: got nothing, expected auto, layers, params, time, memory, block, a list of layers per stage, or {cut_before: [layer names]}"},
  {"placement that repeats a worker",
   "stages: 4", "stages: 4\n  placement: [0, 1, 1, 2]",
   "job.yaml:20:14: pipeline.placement: got [0, 1, 1, 2], expected each of 0 to 3 once: a worker for each of the 4 rows"},
  {"placement of another length",
   "stages: 4", "stages: 4\n  placement: [0, 1]",
   "job.yaml:20:14: pipeline.placement: got [0, 1], expected each of 0 to 3 once: a worker for each of the 4 rows"},
  {"placement with text",
   "stages: 4", "stages: 4\n  placement: [0, 1, two, 3]",
   "job.yaml:20:21: pipeline.placement[2]: got two, expected an integer"},
  {"very many stages",
   "stages: 4", "stages: 2000000000",
   "job.yaml:19:11: pipeline.stages: got 2000000000, expected an integer from 1 to 4096"},
  {"unknown device",
   "threads: 1", "devices: [cpu, gpu]",
   "job.yaml:22:18: workers.devices[1]: got gpu, expected cpu, cuda or cuda:N"},
  {"device with a bad number",
   "threads: 1", "devices: [\"cuda:01\"]",
   "job.yaml:22:13: workers.devices[0]: got \"cuda:01\", expected cpu, cuda or cuda:N"},
  {"no device",
   "threads: 1", "devices: []",
   "job.yaml:22:12: workers.devices: got [], expected at least one device, such as [cpu]"},
  {"device without a list",
   "threads: 1", "devices: cpu",
   "job.yaml:22:12: workers.devices: got cpu, expected a list; write [cpu]"},
  {"per_rank that is text",
   "threads: 1", "per_rank: many",
   "job.yaml:22:13: workers.per_rank: got many, expected auto, an integer >= 1, or a list of them"},
  {"per_rank with an idle rank",
   "threads: 1", "per_rank: [2, 0]",
   "job.yaml:22:17: workers.per_rank[1]: got 0, expected an integer >= 1"},
  {"micro-batches that only a plan can name",
   "micro_batches: 8", "micro_batches: auto",
   "job.yaml:11:18: train.micro_batches: got auto, expected an integer >= 1; a plan names it: lockstep plan CONFIG ... -o plan.yaml, then --plan plan.yaml"},
  {"virtual stages that do not divide the stages",
   "stages: 4", "stages: 4\n  virtual_stages: 3",
   "job.yaml:19:11: pipeline.stages: got 4, expected a multiple of pipeline.virtual_stages, which is 3: 3 or 6"},
  {"more virtual stages than stages",
   "stages: 4", "stages: 4\n  virtual_stages: 5",
   "job.yaml:19:11: pipeline.stages: got 4, expected a multiple of pipeline.virtual_stages, which is 5: 5"},
  {"placement of stages instead of workers",
   "stages: 4", "stages: 4\n  virtual_stages: 2\n  placement: [3, 2, 1, 0]",
   "job.yaml:21:14: pipeline.placement: got [3, 2, 1, 0], expected each of 0 to 1 once: a worker for each of the 2 rows"},
  {"recompute misspelt",
   "stages: 4", "stages: 4\n  recompute: except-last",
   "job.yaml:20:14: pipeline.recompute: got except-last, expected one of never, except_last, always; did you mean 'except_last'?"},
  {"recompute of no layers",
   "stages: 4", "stages: 4\n  recompute: []",
   "job.yaml:20:14: pipeline.recompute: got [], expected at least one pattern of layer names"},
  {"post-validation without clipping",
   "micro_batches: 8", "post_validation: true",
   "job.yaml:11:20: train.post_validation: got true, expected false without clip_grad_norm; only clipping makes an update wait: set train.clip_grad_norm, or leave it out"},
  {"search misspelt, long form",
   "stages: 4", "stages: 4\n  partition: {by: atuo}",
   "job.yaml:20:19: pipeline.partition.by: got atuo, expected one of layers, params, time, memory, block, auto; did you mean 'auto'?"},
  {"a schedule file without a name",
   "schedule: 1f1b", "schedule: \"file: \"",
   "job.yaml:20:13: pipeline.schedule: got \"file: \", expected file:PATH, such as file:my.csv"},
  {"a schedule file with virtual stages",
   "schedule: 1f1b", "schedule: {file: my.csv}\n  virtual_stages: 2",
   "job.yaml:21:19: pipeline.virtual_stages: got 2, expected no virtual_stages with a schedule from a file; my.csv says which stages a worker has: remove it"},
  {"a negative cost",
   "schedule: 1f1b", "schedule: 1f1b\n  costs: {forward_ms: [1, -2]}",
   "job.yaml:21:27: pipeline.costs.forward_ms[1]: got -2, expected a number >= 0"},
  {"no costs in a list",
   "schedule: 1f1b", "schedule: 1f1b\n  costs: {forward_ms: []}",
   "job.yaml:21:23: pipeline.costs.forward_ms: got [], expected a number, or one per stage or per layer"},
  {"a size without a known unit",
   "threads: 1", "memory_limit: 2Gib",
   "job.yaml:22:17: workers.memory_limit: got 2Gib, expected a size such as 2GiB, 512MiB or 1.5GB, or none"},
  {"more replicas than micro-batches",
   "comm:", "replicas: {count: 9}\ncomm:",
   "job.yaml:23:19: replicas.count: got 9, expected at most train.micro_batches, which is 8; every replica runs a part of "
   "the micro-batches: take more of these, or fewer replicas"},
  {"more gradient groups than two micro-batches",
   "micro_batches: 8\n  loss: mse", "micro_batches: 2\n  gradient_groups: 3\n  loss: mse",
   "job.yaml:12:20: train.gradient_groups: got 3, expected an integer from 1 (replicas.count) to 2 (train.micro_batches)"},
  {"more gradient groups than micro-batches",
   "micro_batches: 8", "micro_batches: 8\n  gradient_groups: 9",
   "job.yaml:12:20: train.gradient_groups: got 9, expected an integer from 1 (replicas.count) to 8 "
   "(train.micro_batches)"},
  {"central storage that is sharded",
   "comm:", "replicas: {strategy: central_storage, shard_optimizer: true}\ncomm:",
   "job.yaml:23:56: replicas.shard_optimizer: got true, expected false with strategy central_storage; there the "
   "optimizer's state is there once: leave it out"},
  {"servers of a pipeline",
   "comm:", "replicas: {strategy: parameter_server}\ncomm:",
   "job.yaml:19:11: pipeline.stages: got 4, expected 1 with replicas.strategy parameter_server; each replica is one worker "
   "there, and its weights are the servers'"},
  {"a negative staleness",
   "comm:", "replicas: {strategy: parameter_server, max_staleness: -1}\ncomm:",
   "job.yaml:23:55: replicas.max_staleness: got -1, expected an integer >= 0"},
  {"checkpoints in seconds",
   "comm:", "checkpoint: {every: 90s}\ncomm:",
   "job.yaml:23:21: checkpoint.every: got 90s, expected a number of steps (100) or minutes (10min), end or never"},
  {"checkpoints every 0 steps",
   "comm:", "checkpoint: {every: 0}\ncomm:",
   "job.yaml:23:21: checkpoint.every: got 0, expected a number of steps (100) or minutes (10min), end or never"},
  {"no checkpoint kept",
   "comm:", "checkpoint: {every: end, keep: 0}\ncomm:",
   "job.yaml:23:32: checkpoint.keep: got 0, expected an integer >= 1"},
  {"best without an evaluation",
   "comm:", "checkpoint: {every: 10, best: eval_loss}\ncomm:",
   "job.yaml:23:31: checkpoint.best: got eval_loss, expected none; nothing is evaluated: set train.eval_every and data.eval"},
  {"stop_after below 0",
   "loss: mse", "loss: mse\n  stop_after: -1",
   "job.yaml:13:15: train.stop_after: got -1, expected an integer >= 0"},
  {"key twice",
   "loss: mse", "loss: mse\n  steps: 100",
   "job.yaml:13:3: train.steps: got the key twice (lines 9 and 13), expected it once; keep one of the two"},
  {"key twice in a model",
   "layers: 4", "layers: 4\n  layers: 5",
   "job.yaml:6:3: model.layers: got the key twice (lines 5 and 6), expected it once; keep one of the two"},
  {"key twice in a group",
   "lr: 0.001", "lr: 0.001\n    groups:\n    - match: [a]\n    - {match: [b], match: [c]}",
   "job.yaml:18:20: train.optimizer.groups[1].match: got the key twice, expected it once; keep one of the two"},
  {"section twice",
   "comm:", "train:\n  steps: 1\ncomm:",
   "job.yaml:23:1: train: got the key twice (lines 8 and 23), expected it once; keep one of the two"},
  {"indented with a tab",
   "  loss: mse", "\tloss: mse",
   "job.yaml:12:1: got text that is not YAML (illegal tab when looking for indentation), expected 'key: value' lines; the line is indented with a tab: use spaces"},
  {"indented with a tab after spaces",
   "  loss: mse", "  \tloss: mse",
   "job.yaml:12:3: got text that is not YAML (illegal tab when looking for indentation), expected 'key: value' lines; the line is indented with a tab: use spaces"},
  {"indented too far",
   "  loss: mse", "   loss: mse",
   "job.yaml:12:8: got text that is not YAML (illegal map value), expected 'key: value' lines; check the indentation and the quotes here, and quote a text that contains ': '"},
  {"open bracket",
   "stages: 4", "stages: 4\n  placement: [0, 1",
   "job.yaml:21:11: got text that is not YAML (end of sequence flow not found), expected 'key: value' lines; close the '[' of line 20, or add a comma"},
  {"open quote",
   "loss: mse", "loss: \"mse",
   "job.yaml:12:9: train.loss: got a quote that is never closed, expected its end"},
  {"colon in a value",
   "schedule: 1f1b", "schedule: file: my.csv",
   "job.yaml:20:17: got text that is not YAML (illegal map value), expected 'key: value' lines; check the indentation and the quotes here, and quote a text that contains ': '"},
  {"unknown alias",
   "steps: 200", "steps: *count",
   "job.yaml:9:10: got text that is not YAML (the referenced anchor is not defined), expected 'key: value' lines; quote a text that begins with *"},
  {"alias of itself",
   "layers: 4", "layers: &loop [*loop]",
   "job.yaml:5:18: model.layers[0]: got an alias inside its own anchor, expected a finite value"},
  {"merge key without a mapping",
   "layers: 4", "<<: 4",
   "job.yaml:5:7: model: got a merge key '<<' without a mapping, expected '<<: *anchor'"},
  {"tag",
   "steps: 200", "steps: !!int 200",
   "job.yaml:9:10: train.steps: got the YAML tag '!!int', expected a plain value; remove the tag"},
  {"list as a key",
   "layers: 4", "? [1, 2]\n  : 4",
   "job.yaml:5:5: model: got a list or mapping as a key, expected 'key: value'"},
  {"value without a key",
   "layers: 4", ": 4",
   "job.yaml:5:3: model: got a value without a key, expected 'key: value'"},
  {"two documents",
   "workers:", "---\nworkers:",
   "job.yaml:21:1: got a second YAML document, expected one; remove the '---' line and what does not belong here"},
  {"control character",
   "loss: mse", "loss: m\004se",
   "job.yaml:12:10: got the control character 4, expected UTF-8 text"},
  {"column behind letters of several bytes",
   "lr: 0.001", "lr: 0.001\n    groups: [{match: [é], lr_scale: x}]",
   "job.yaml:16:37: train.optimizer.groups[0].lr_scale: got x, expected a number >= 0"},
  {"glob without quotes",
   "  type: text", "  type: text\n  train: *.txt",
   "job.yaml:8:10: got text that is not YAML (the referenced anchor is not defined), expected 'key: value' lines; quote a text that begins with *"},
  {"missing comma",
   "loss: mse", "loss: mse\n  freeze: {a: 1 b: 2}",
   "job.yaml:13:18: got text that is not YAML (end of map flow not found), expected 'key: value' lines; close the '{' of line 13, or add a comma"},
  {"text that begins with @",
   "loss: mse", "loss: @mse",
   "job.yaml:12:9: got text that is not YAML (unknown token), expected 'key: value' lines; quote a text that begins with @"},
  {"optimizer key twice on one line",
   "  optimizer:\n    type: adamw\n    lr: 0.001\n", "  optimizer: {lr: 1, lr: 2}\n",
   "job.yaml:13:22: train.optimizer.lr: got the key twice, expected it once; keep one of the two"},
  {"overflow below",
   "steps: 200", "steps: -99999999999999999999",
   "job.yaml:9:10: train.steps: got -99999999999999999999, expected an integer >= 1; the smallest is -9223372036854775808"},
  {"open single quote",
   "loss: mse", "loss: 'mse",
   "job.yaml:12:9: train.loss: got a quote that is never closed, expected its end"},
  {"stray comma",
   "stages: 4", "stages: ,4",
   "job.yaml:19:11: got text that is not YAML (end of map not found), expected 'key: value' lines; quote a text that begins with ,"},
  {"list in front of the mapping",
   "name: small", "- name: small",
   "job.yaml:2:1: got text that does not continue the YAML before it, expected one mapping; check the indentation and the punctuation here"},
};

const BadText kBadOverrides[] = {
  {"train.batch=-3", "--set train.batch=-3: train.batch: got -3, expected an integer >= 1"},
  {"train.batch", "--set train.batch: got no '=', expected key=value, such as train.steps=100"},
  {"=3", "--set =3: got an empty key, expected key=value, such as train.steps=100"},
  {"train..batch=3", "--set train..batch=3: got an empty key, expected key=value, such as train.steps=100"},
  {".batch=3", "--set .batch=3: got an empty key, expected key=value, such as train.steps=100"},
  {"train.steps.x=3", "--set train.steps.x=3: train.steps: got a path through 200, expected a mapping; set train.steps as a whole"},
  {"pipeline.stages=[1", "--set pipeline.stages=[1: pipeline.stages: got text that is not YAML (end of sequence flow not found), expected a YAML value; close the '[', or add a comma"},
  {"train.batsh=3", "--set train.batsh=3: train.batsh: got an unknown key, expected one of {train}; did you mean 'batch'?"},
  {"pipline.stages=3", "--set pipline.stages=3: pipline: got an unknown key, expected one of {all}; did you mean 'pipeline'?"},
  {"train.batch=", "--set train.batch=: train.batch: got nothing, expected an integer >= 1"},
  {"train.optimizer={lr: 1, lr: 2}", "--set train.optimizer={lr: 1, lr: 2}: train.optimizer.lr: got the key twice, expected it once; keep one of the two"},
  {"train.loss=a: b: c", "--set train.loss=a: b: c: train.loss: got text that is not YAML (illegal map value), expected a YAML value; check the indentation and the quotes here, and quote a text that contains ': '"},
  {"train=5", "--set train=5: train: got 5, expected a mapping"},
  {"pipeline.placement=[3, 2, 1]", "--set pipeline.placement=[3, 2, 1]: pipeline.placement: got [3, 2, 1], expected each of 0 to 3 once: a worker for each of the 4 rows"},
  {"comm.watchdog_s=1\n---\n2", "--set comm.watchdog_s=1 --- 2: comm.watchdog_s: got a second YAML document, expected one; remove the '---' line and what does not belong here"},
  {"train.steps=0", "--set train.steps=0: train.steps: got 0, expected an integer >= 1"},
  {"workers.memory_limit=0", "--set workers.memory_limit=0: workers.memory_limit: got 0, expected a size such as 2GiB, 512MiB or 1.5GB, or none"},
  {"pipeline.stages={a: 1", "--set pipeline.stages={a: 1: pipeline.stages: got text that is not YAML (end of map flow not found), expected a YAML value; close the '{', or add a comma"},
  {"train.loss=\"x", "--set train.loss=\"x: train.loss: got text that is not YAML (illegal EOF in scalar), expected a YAML value; check the indentation and the quotes here, and quote a text that contains ': '"},
  {"train.steps=,3", "--set train.steps=,3: train.steps: got text that does not continue the YAML before it, expected one mapping; check the indentation and the punctuation here"},
  {"train.steps=- 3\nx: 4", "--set train.steps=- 3 x: 4: train.steps: got text that does not continue the YAML before it, expected one mapping; check the indentation and the punctuation here"},
};

const BadText kBadDocuments[] = {
  {"", "job.yaml:1:1: got an empty document, expected a mapping ('key: value' lines)"},
  {"# only a comment\n", "job.yaml:1:1: got an empty document, expected a mapping ('key: value' lines)"},
  {"---\n", "job.yaml:1:1: got an empty document, expected a mapping ('key: value' lines)"},
  {"- a\n- b\n", "job.yaml:1:1: got [a, b] at the top, expected a mapping ('key: value' lines)"},
  {"just text", "job.yaml:1:1: got just text at the top, expected a mapping ('key: value' lines)"},
  {",3", "job.yaml:1:1: got text that does not continue the YAML before it, expected one mapping; check the indentation and the punctuation here"},
  {"a: 1\n]\n", "job.yaml:2:1: got text that is not YAML (illegal flow end), expected 'key: value' lines; check the indentation and the quotes here, and quote a text that contains ': '"},
  {"\ta: 1", "job.yaml:1:3: got text that is not YAML (illegal map value), expected 'key: value' lines; the line is indented with a tab: use spaces"},
};
// clang-format on

}  // namespace

TEST_CASE("every bad config names the place, the key, what was got and what was expected", "[unit]") {
  for (const BadEdit& edit : kBadEdits) {
    std::string text = kSmall;
    const auto at = text.find(edit.replaced);
    REQUIRE(at != std::string::npos);
    text.replace(at, std::string(edit.replaced).size(), edit.with);
    INFO(edit.name);
    CHECK(error_of(text) == with_keys(edit.message));
  }
}

TEST_CASE("every bad override names itself as the place", "[unit]") {
  for (const BadText& bad : kBadOverrides) CHECK(error_of(kSmall, {bad.text}) == with_keys(bad.message));
}

TEST_CASE("a document that is no mapping is refused", "[unit]") {
  for (const BadText& bad : kBadDocuments) CHECK(error_of(bad.text) == bad.message);
}

TEST_CASE("the config that the bad ones are made of is good", "[unit]") {
  CHECK(error_of(kSmall) == "no error");
}

}  // namespace lockstep
