// SPDX-License-Identifier: Apache-2.0
#include "tests/parity/support.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/random.hpp"
#include "tests/test.hpp"

namespace lockstep::test {
namespace {

class FixedDataset : public Dataset {
 public:
  FixedDataset(at::Tensor x, at::Tensor targets) : x_(std::move(x)), targets_(std::move(targets)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {entry("x", x_, rows), entry("targets", targets_, rows)};
  }
  std::int64_t size() const override { return x_.size(0); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor index = at::tensor(samples);
    return {x_.index_select(0, index), targets_.index_select(0, index)};
  }

 private:
  static EntrySpec entry(const std::string& name, const at::Tensor& tensor, std::int64_t rows) {
    std::vector<std::int64_t> sizes = tensor.sizes().vec();
    sizes[0] = rows;
    return {name, tensor.scalar_type(), sizes, /*differentiable=*/false};
  }
  at::Tensor x_, targets_;
};

DataSplits splits(const std::function<std::shared_ptr<const Dataset>(std::int64_t)>& make, std::int64_t samples) {
  return {make(samples), make(7)};
}

}  // namespace

DataSplits regression_data(std::int64_t samples, std::int64_t inputs, std::int64_t outputs) {
  return splits(
      [=](std::int64_t count) {
        const RandomScope scope(mix_seed(7, static_cast<std::uint64_t>(count), 0, "regression"));
        return std::make_shared<FixedDataset>(at::randn({count, inputs}), at::randn({count, outputs}));
      },
      samples);
}

DataSplits token_data(std::int64_t samples, std::int64_t length, std::int64_t vocab) {
  return splits(
      [=](std::int64_t count) {
        const RandomScope scope(mix_seed(7, static_cast<std::uint64_t>(count), 0, "tokens"));
        at::Tensor targets = at::randint(vocab, {count, length}, at::kLong);
        targets.masked_fill_(at::rand({count, length}) < 0.2, -100);
        targets.narrow(0, 0, count / 4).fill_(-100);
        return std::make_shared<FixedDataset>(at::randint(vocab, {count, length}, at::kLong), targets);
      },
      samples);
}

DataSplits image_data(std::int64_t samples, std::int64_t channels, std::int64_t size, std::int64_t classes,
                      bool segmentation) {
  return splits(
      [=](std::int64_t count) {
        const RandomScope scope(mix_seed(7, static_cast<std::uint64_t>(count), 0, "images"));
        at::Tensor targets = at::randint(classes, {count}, at::kLong);
        if (segmentation) {
          targets = at::randint(classes, {count, size, size}, at::kLong);
          targets.masked_fill_(at::rand({count, size, size}) < 0.2, -100);
        }
        return std::make_shared<FixedDataset>(at::randn({count, channels, size, size}) + 1, targets);
      },
      samples);
}

Model mlp_with_skip(double dropout, bool skip) {
  Model model{"mlp", {}};
  const auto linear = [&](const std::string& name, int in, int out) {
    model.layers.push_back({name, std::make_shared<Linear>(in, out)});
  };
  linear("fc.0", 6, 16);
  if (skip) model.layers.back().outputs = {"first"};
  model.layers.push_back({"act.0", std::make_shared<Activation>("gelu"), {skip ? "first" : "x"}, {"x"}});
  model.layers.push_back({"drop.0", std::make_shared<Dropout>(dropout)});
  linear("fc.1", 16, 16);
  model.layers.push_back({"norm", std::make_shared<LayerNorm>(16)});
  if (skip) model.layers.push_back({"middle", std::make_shared<Add>(), {"x", "first"}, {"x"}});
  model.layers.push_back({"drop.1", std::make_shared<Dropout>(dropout)});
  linear("fc.2", 16, 16);
  model.layers.push_back({"act.2", std::make_shared<Activation>("relu")});
  if (skip) model.layers.push_back({"join", std::make_shared<Add>(), {"x", "first"}, {"x"}});
  linear("out", 16, 3);
  return model;
}

Model small_gpt(int layers, double dropout, bool tied) {
  return make_model(
      load_config_text(concat("{type: gpt, layers: ", layers, ", heads: 2, width: 16, context: 8, vocab: 11, ",
                              "dropout: ", dropout, ", tie_embeddings: ", tied ? "true" : "false", "}"),
                       "test"));
}

Model model_of(const std::string& keys) {
  return make_model(load_config_text("{" + keys + "}", "test"));
}

Config small_config(const std::string& loss, std::int64_t batch, int micro_batches) {
  Config config;
  config.name = "test";
  config.seed = 3;
  config.train.steps = 5;
  config.train.batch = batch;
  config.train.micro_batches = micro_batches;
  config.train.loss = loss;
  config.train.clip_grad_norm = 0.5;
  config.train.optimizer.lr = 0.01;
  config.train.optimizer.weight_decay = 0.1;
  config.train.optimizer.decay_norms_and_biases = false;
  config.train.lr_schedule.type = LrScheduleType::cosine;
  config.train.lr_schedule.warmup_steps = 2;
  config.train.eval_every = 2;
  config.train.eval_batch = 3;
  config.comm.watchdog_s = 60;
  return config;
}

Config with_pipeline(Config config, int stages, const std::string& schedule, int virtual_stages) {
  config.pipeline.virtual_stages = virtual_stages;
  config.pipeline.stages = stages;
  config.pipeline.schedule = schedule;
  return config;
}

RunRecord reference_run(const Model& model, const DataSplits& data, const Config& config) {
  Trainer trainer(model, data, one_worker(config), Ranks{});
  return record_run(trainer);
}

std::string difference(const RunRecord& reference, const Model& model, const DataSplits& data, const Config& config) {
  Trainer trainer(model, data, config);
  const RunRecord tested = record_run(trainer);
  for (std::size_t i = 0; i < std::min(reference.results.size(), tested.results.size()); ++i)
    if (const double got = tested.results[i].operations(), expected = reference.results[i].operations();
        got != expected)
      return concat("result ", i, " counts ", got, " operations instead of ", expected);
  return first_difference(reference, tested, trainer.graph()).value_or("");
}

RunRecord next_leg(const Model& model, const DataSplits& data, const Config& config, const std::string& folder,
                   const Ranks& ranks) {
  Trainer trainer(model, data, config, ranks);
  const std::vector<CheckpointPlace> all = list_checkpoints(folder);
  if (!all.empty()) trainer.resume(all.back().path);
  return record_run(trainer, {.checkpoints = folder});
}

void append(RunRecord& run, const RunRecord& leg) {
  run.results.insert(run.results.end(), leg.results.begin(), leg.results.end());
  run.hashes.insert(run.hashes.end(), leg.hashes.begin(), leg.hashes.end());
  run.parameters = leg.parameters;
}

}  // namespace lockstep::test
