// SPDX-License-Identifier: Apache-2.0
//
// The engine against a training loop that a LibTorch user would write: one autograd graph, .backward(), no engine.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <map>

#include "runtime/config/lr_schedule.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

class HandWrittenLoop {
 public:
  HandWrittenLoop(const ModelGraph& graph, const Config& config) : config_(config) {
    for (const ParameterInfo& parameter : graph.parameters) {
      names_.push_back(parameter.name);
      values_[parameter.name] = initial_value(parameter, config.seed, at::kCPU).requires_grad_(true);
      first_[parameter.name] = at::zeros_like(values_[parameter.name]);
      second_[parameter.name] = at::zeros_like(values_[parameter.name]);
    }
  }

  // Returns {loss sum, gradient norm}.
  std::pair<double, double> step(std::int64_t step, const at::Tensor& x, const at::Tensor& targets) {
    double loss_sum = 0;
    std::int64_t start = 0;
    const double n = static_cast<double>(targets.numel());
    for (const std::int64_t rows : slice_rows(config_.train.batch, config_.train.micro_batches, x.size(0))) {
      const at::Tensor sum =
          at::mse_loss(forward(x.narrow(0, start, rows)), targets.narrow(0, start, rows), at::Reduction::Sum);
      loss_sum += sum.item<double>();
      (sum / n).backward();
      start += rows;
    }
    const double norm = clip();
    update(step);
    return {loss_sum, norm};
  }

  const at::Tensor& value(const std::string& name) const { return values_.at(name); }
  const std::vector<std::string>& names() const { return names_; }

 private:
  // mlp_with_skip(0, true), written out.
  at::Tensor forward(const at::Tensor& x) const {
    const auto linear = [&](const at::Tensor& input, const std::string& layer) {
      return at::linear(input, values_.at(layer + ".weight"), values_.at(layer + ".bias"));
    };
    const at::Tensor first = linear(x, "fc.0");
    const at::Tensor hidden = linear(at::gelu(first), "fc.1");
    const at::Tensor normed = at::layer_norm(hidden, {16}, values_.at("norm.weight"), values_.at("norm.bias"), 1e-5);
    return linear(at::relu(linear(normed + first, "fc.2")) + first, "out");
  }

  double clip() {
    double sum = 0;
    for (const std::string& name : names_) sum += squared_norm(values_[name].grad());
    const double norm = std::sqrt(sum), coefficient = config_.train.clip_grad_norm / (norm + 1e-6);
    if (coefficient < 1)
      for (const std::string& name : names_) values_[name].mutable_grad().mul_(coefficient);
    return norm;
  }

  void update(std::int64_t step) {
    at::NoGradGuard no_grad;
    const OptimizerConfig& adamw = config_.train.optimizer;
    const double rate = learning_rate(config_.train.lr_schedule, adamw.lr, step, config_.train.steps);
    for (const std::string& name : names_) {
      at::Tensor& value = values_[name];
      at::_fused_adamw_({value}, {value.grad()}, {first_[name]}, {second_[name]}, {},
                        {at::full({}, static_cast<double>(step), at::kFloat)}, rate, adamw.beta1, adamw.beta2,
                        value.dim() > 1 ? adamw.weight_decay : 0.0, adamw.eps, /*amsgrad=*/false, /*maximize=*/false);
      value.mutable_grad() = at::Tensor();
    }
  }

  Config config_;
  std::vector<std::string> names_;
  std::map<std::string, at::Tensor> values_, first_, second_;
};

}  // namespace

TEST_CASE("the engine gives the bits of a hand-written LibTorch loop", "[parity]") {
  at::set_num_threads(1);
  const Model model = mlp_with_skip(0.0, true);
  const DataSplits data = regression_data(16, 6, 3);
  for (const int micro_batches : {1, 3, 8})
    for (const int stages : {1, 3}) {
      INFO(micro_batches << " micro-batches, " << stages << " stages");
      Config config = with_pipeline(small_config("mean_squared_error", 8, micro_batches), stages, "1f1b");
      config.train.eval_every = 0;
      Trainer trainer(model, data, config);
      const RunRecord record = record_run(trainer);

      HandWrittenLoop loop(trainer.graph(), config);
      Sampler sampler(data.train->size(), config.seed);
      for (std::int64_t step = 1; step <= config.train.steps; ++step) {
        const Tensors batch = data.train->read(sampler.batch((step - 1) * 8, 8));
        const auto [loss_sum, norm] = loop.step(step, batch[0], batch[1]);
        CHECK(record.results[step - 1].heads.at(0).sum == loss_sum);
        CHECK(record.results[step - 1].gradient_norm == norm);
      }
      REQUIRE(record.parameters.size() == loop.names().size());
      for (const FinalParameter& parameter : record.parameters) {
        INFO(trainer.graph().parameters[parameter.index].name);
        CHECK(at::equal(parameter.value, loop.value(trainer.graph().parameters[parameter.index].name)));
      }
    }
}
