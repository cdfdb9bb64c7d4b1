// SPDX-License-Identifier: Apache-2.0
//
// A model of one's own: a layer, a list of layers, a data set, and a main that trains it on three workers.
// docs/cpp_api.md walks through it.
//
//   own_model                trains
//   own_model RUN_FOLDER     also keeps checkpoints and metrics there, and goes on from what is there
//
// and with mpirun -n 2 or 3 before it on as many ranks.
#include <ATen/ATen.h>

#include <iostream>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/observe/reporter.hpp"
#include "runtime/session/process.hpp"
#include "runtime/session/resume_point.hpp"
#include "runtime/session/run_folder.hpp"

using namespace lockstep;

// x -> x + scale * sin(x), with one learned scale per column.
class Wave : public Layer {
 public:
  explicit Wave(std::int64_t width) : width_(width) {}
  std::string type() const override { return "wave"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], width_);
    return {{{"scale", {width_}, Init::normal(0.1), ""}}, {inputs[0]}};
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {inputs[0] + context.leaf("scale") * at::sin(inputs[0])};
  }

 private:
  std::int64_t width_;
};

// y = sin(3 x): samples that need no file.
class Sine : public Dataset {
 public:
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {{"x", at::kFloat, {rows, 1}, false}, {"targets", at::kFloat, {rows, 1}, false}};
  }
  std::int64_t size() const override { return 512; }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor x = at::tensor(samples).to(at::kFloat).div(256).sub(1).unsqueeze(1);
    return {x, at::sin(3 * x)};
  }
};

// Reporter writes metrics.jsonl.
class Print : public Reporter {
 public:
  Print(const ReporterOptions& options, bool speaks) : Reporter(options), speaks_(speaks) {}
  void on_result(const StepResult& result) override {
    if (speaks_ && result.step % 50 == 0)
      std::cout << "step " << result.step << "  loss " << result.loss() << std::endl;
    Reporter::on_result(result);
  }

 private:
  bool speaks_;
};

int own_model(Process& process, const std::string& folder) {
  Model model{"wave", {}};
  model.layers.push_back({"in", std::make_shared<Linear>(1, 64)});
  for (int i = 0; i < 4; ++i) {
    model.layers.push_back({concat("fc.", i), std::make_shared<Linear>(64, 64)});
    model.layers.push_back({concat("wave.", i), std::make_shared<Wave>(64)});
  }
  model.layers.push_back({"out", std::make_shared<Linear>(64, 1)});

  Config config;
  config.train.steps = 200;
  config.train.batch = 64;
  config.train.micro_batches = 4;
  config.train.loss = "mean_squared_error";
  config.train.optimizer.lr = 3e-3;
  config.pipeline.stages = 3;
  config.pipeline.schedule = "1f1b";

  if (!folder.empty()) config.checkpoint.every = "50";

  std::unique_ptr<Trainer> trainer;
  RunOptions options;
  ReporterOptions report;
  report.steps = config.train.steps;
  std::unique_ptr<RunFolder> run;  // one job at a time in a folder
  process.together([&] {
    trainer = std::make_unique<Trainer>(model, DataSplits{std::make_shared<Sine>(), nullptr}, config, process.ranks());
    if (!folder.empty() && process.is_root()) run = std::make_unique<RunFolder>(folder, /*resume=*/true);
  });
  if (!folder.empty()) {
    process.together([&] {
      const ResumePoint newest = choose_checkpoint(process, "auto", folder);
      if (!newest.checkpoint.empty()) trainer->resume(newest.checkpoint);
    });
    options.checkpoints = checkpoints_of(folder);
    if (process.is_root()) report.metrics_file = folder + "/metrics.jsonl";
    report.resume_after = trainer->start().step;
  }
  process.compare(*trainer);
  process.connect(*trainer);
  Print print(report, process.is_root());
  options.observer = &print;
  trainer->fit(options);
  return 0;
}

int main(int count, char** arguments) {
  return run_ranks([&](Process& process) { return own_model(process, count > 1 ? arguments[1] : ""); });
}
