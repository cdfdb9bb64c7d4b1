// SPDX-License-Identifier: Apache-2.0
//
// A plug-in with one of everything that a config names: lockstep train examples/plugin/extras.yaml (docs/plugins.md).
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "runtime/layer/layers.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/session/plugins.hpp"

namespace {

using namespace lockstep;

// ---- an activation ----

at::Tensor sine(const at::Tensor& x) {
  return at::sin(x);
}

std::string onnx_sine(OnnxGraph& graph, const std::string& x) {  // for lockstep export --onnx
  return graph.add("Sin", {x});
}

// ---- a layer: its options named once, for YAML, C++, profiles and `lockstep list layers` ----

struct SnakeConfig {
  std::int64_t width = 0;
  double frequency = 1.0;
};

void fields(FieldVisitor& visit, SnakeConfig& config) {
  visit("width", value(config.width, at_least<std::int64_t>(1)).required());
  visit("frequency", value(config.frequency, above(0.0)));
}

// x + sin(f x)^2 / f with one learned factor per column (Ziyin, Hartwig, Ueda, "Neural Networks Fail to Learn Periodic
// Functions and How to Fix It", 2020).
class Snake : public LayerOf<SnakeConfig> {
 public:
  explicit Snake(const SnakeConfig& config) : LayerOf("snake", config) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    return {{{"factor", {config().width}, Init::ones(), ""}}, {inputs[0]}};
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor sine = at::sin(inputs[0] * config().frequency);
    return {inputs[0] + context.leaf("factor") * sine * sine / config().frequency};
  }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string frequency = graph.number(config().frequency);
    const std::string sine = graph.add("Sin", {graph.add("Mul", {inputs[0], frequency})});
    const std::string scaled = graph.add("Mul", {graph.parameter("factor"), graph.add("Mul", {sine, sine})});
    return {graph.add("Add", {inputs[0], graph.add("Div", {scaled, frequency})})};
  }
};

// ---- a loss: a sum over the micro-batch, never a mean; what it is divided by follows from the targets alone ----

class LogCosh : public Loss {  // sum log cosh(output - target), as Keras' LogCosh
 public:
  std::string name() const override { return "log_cosh"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    if (output.sizes != targets.sizes || !at::isFloatingType(targets.dtype))
      throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ",
                              name(), " wants numbers of the same shape"));
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wide = for_loss(output), error = wide - targets.to(wide.scalar_type());
    return (error + at::softplus(-2 * error) - std::log(2.0)).sum();
  }
};

// ---- a metric: numbers of each micro-batch, merged over the whole evaluation set ----

class LargestError : public Metric {
 public:
  std::string name() const override { return "largest_error"; }
  bool more_is_better() const override { return false; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    if (output.sizes != targets.sizes) throw ModelError("it wants targets of the shape of the output");
  }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    return (output.to(at::kDouble) - targets).abs().max().reshape({1});
  }
  void merge(std::vector<double>& all, std::span<const double> more) const override {
    all = {all.empty() ? more[0] : std::max(all[0], more[0])};
  }
  double value(const std::vector<double>& all) const override { return all.empty() ? NAN : all[0]; }
};

// ---- a reader: numbered samples, each a function of its number ----

class Waves : public Dataset {
 public:
  Waves(std::int64_t first, std::int64_t samples, std::int64_t length)
      : first_(first), samples_(samples), length_(length) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    EntrySpec x{"x", at::kFloat, {rows, length_}, /*differentiable=*/false}, targets = x;
    targets.name = "targets";
    targets.sizes = {rows, 1};
    return {x, targets};
  }
  std::int64_t size() const override { return samples_; }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor numbers = at::tensor(samples, at::kLong).to(at::kFloat).unsqueeze(1) + first_;
    const at::Tensor steps = at::arange(length_ + 1, at::kFloat).unsqueeze(0);
    const at::Tensor wave = at::sin(numbers + steps * 0.3);  // the next value is to be told
    return {wave.narrow(1, 0, length_).contiguous(), wave.narrow(1, length_, 1).contiguous()};
  }

 private:
  std::int64_t first_, samples_, length_;
};

DataSplits open_waves(const Section& section, const DataContext&) {
  const auto samples = section.get<std::int64_t>("samples", at_least<std::int64_t>(1));
  const auto length = section.get<std::int64_t>("length", 8, at_least<std::int64_t>(1));
  section.finish();
  return {std::make_shared<Waves>(0, samples, length), std::make_shared<Waves>(samples, samples / 8 + 1, length)};
}

// ---- a model, made of layers of ours ----

Model make_funnel(const Section& section, const ModelTables& tables) {
  const auto width = section.get<std::int64_t>("width", at_least<std::int64_t>(1));
  const auto activation = section.get<std::string>("activation", "relu", one_of(tables.activations.names()));
  Model model{"funnel", {}};
  std::int64_t in = section.get<std::int64_t>("inputs", at_least<std::int64_t>(1));
  for (std::int64_t out = width; out > 1; in = out, out /= 2) {
    model.layers.push_back({concat("fc.", out), std::make_shared<Linear>(in, out)});
    model.layers.push_back({concat("act.", out), std::make_shared<Activation>(tables.activations.get(activation))});
  }
  model.layers.push_back({"out", std::make_shared<Linear>(in, 1)});
  return model;
}

// ---- an optimizer: what it keeps beside a parameter, and one step of it (Lion: Chen et al., 2023) ----

class Lion : public UpdateRule {
 public:
  explicit Lion(const Section& keys)
      : fast_(keys.get("beta1", 0.9, fraction_below_one())), slow_(keys.get("beta2", 0.99, fraction_below_one())) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override { return {{"exp_avg", parameter}}; }
  void update(TrainedTensor& parameter, const UpdateStep& step) const override {
    at::Tensor& average = parameter.kept[0];
    parameter.value.mul_(1 - step.lr * step.weight_decay);
    parameter.value.add_(at::lerp(parameter.gradient, average, fast_).sign_(), -step.lr);
    average.lerp_(parameter.gradient, 1 - slow_);
  }

 private:
  double fast_, slow_;
};

// ---- a learning-rate schedule: the rate of a step behind the warm-up ----

LearningRate inverse_sqrt(const LrScheduleConfig& schedule) {
  const auto warm = static_cast<double>(std::max<std::int64_t>(schedule.warmup_steps, 1));
  return [warm](double base, std::int64_t step) { return base * std::sqrt(warm / static_cast<double>(step)); };
}

void add_extras(Registry& registry) {
  registry.activations.add({"sine", "sin(x)", sine, onnx_sine});
  registry.layers.add(layer_kind<Snake>("snake", "x + sin(f x)^2 / f, by column"));
  registry.losses.add({"log_cosh", "regression: numbers, any shape", [] { return std::make_unique<LogCosh>(); }});
  registry.metrics.add({"largest_error", "the largest |output - target|",
                        [](const Section&) { return std::make_unique<LargestError>(); }});
  registry.readers.add({"waves", "sines, of which the next value is to be told", open_waves});
  registry.models.add({"funnel", "linear layers, each half as wide as the one before", make_funnel});
  registry.optimizers.add({"lion", "signs of a moving average",
                           [](const OptimizerConfig& config) { return std::make_shared<Lion>(config.plugin.keys); }});
  registry.lr_schedules.add({"inverse_sqrt", "falls with the root of the step", inverse_sqrt});
}

}  // namespace

LOCKSTEP_PLUGIN(add_extras)
