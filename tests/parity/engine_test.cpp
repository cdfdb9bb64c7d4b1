// SPDX-License-Identifier: Apache-2.0
//
// What the engine does besides the plain matrix: precision, freezing, optimizers, and how it fails.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <numeric>

#include "runtime/engine/stage.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/training/optimizer.hpp"
#include "tests/parity/idling.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

// Passes its input on, until it does something else.
class Odd : public Layer {
 public:
  enum class Habit { throws, writes, not_a_number };
  explicit Odd(Habit habit) : habit_(habit) {}
  std::string type() const override { return "odd"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return {{}, {inputs[0]}}; }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    calls_ += context.training() ? 1 : 0;
    if (calls_ != 6) return {inputs[0] * 1.0};  // step 2, micro-batch 1, of 4
    switch (habit_) {
      case Habit::throws: throw std::runtime_error("no more");
      case Habit::writes: inputs[0].detach().add_(1); return {inputs[0] * 1.0};
      case Habit::not_a_number: return {inputs[0] * std::numeric_limits<double>::quiet_NaN()};
    }
    return {};
  }

 private:
  Habit habit_;
  mutable int calls_ = 0;
};

Model with_odd_layer(Odd::Habit habit) {
  Model model = mlp_with_skip(0.0, false);
  model.layers.insert(model.layers.begin() + 4, {"odd", std::make_shared<Odd>(habit)});
  return model;
}

std::string failure(const Model& model) {
  Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 3, "1f1b");
  config.train.eval_every = 0;
  Trainer trainer(model, regression_data(16, 6, 3), config);
  try {
    trainer.fit();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::map<std::string, at::Tensor> values_of(const Trainer& trainer, const JobOutcome& outcome) {
  std::map<std::string, at::Tensor> values;
  for (const FinalParameter& parameter : outcome.parameters)
    values[trainer.graph().parameters[parameter.index].name] = parameter.value;
  return values;
}

}  // namespace

TEST_CASE("bf16 trains to the same bits for every cut", "[parity]") {
  const Model gpt = small_gpt(3, 0.2, true);
  const DataSplits data = token_data(21, 8, 11);
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  config.train.precision = Precision::bf16;
  const RunRecord reference = reference_run(gpt, data, config);
  for (const FinalParameter& parameter : reference.parameters) CHECK(parameter.value.scalar_type() == at::kFloat);
  for (int stages = 1; stages <= 4; ++stages)
    CHECK(difference(reference, gpt, data, with_pipeline(config, stages, "1f1b")) == "");
}

TEST_CASE("fp64 trains to the same bits for every cut, all of it in double, from the weights of fp32", "[parity]") {
  const Model gpt = small_gpt(3, 0.2, true);
  const DataSplits data = token_data(21, 8, 11);
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  const RunRecord single = reference_run(gpt, data, config);
  config.train.precision = Precision::fp64;
  const RunRecord reference = reference_run(gpt, data, config);
  for (const FinalParameter& parameter : reference.parameters) CHECK(parameter.value.scalar_type() == at::kDouble);
  for (int stages = 1; stages <= 4; ++stages)
    CHECK(difference(reference, gpt, data, with_pipeline(config, stages, "1f1b")) == "");
  REQUIRE(single.results.size() == reference.results.size());
  for (std::size_t step = 0; step < single.results.size(); ++step) {
    CHECK(single.results[step].loss() == Approx(reference.results[step].loss()).epsilon(1e-5));
    CHECK(single.results[step].loss() != reference.results[step].loss());
  }
}

TEST_CASE("every optimizer trains to the same bits for every cut", "[parity]") {
  const Model model = mlp_with_skip(0.1, true);
  const DataSplits data = regression_data(21, 6, 3);
  for (const OptimizerType type : {OptimizerType::sgd, OptimizerType::adam, OptimizerType::adamw}) {
    Config config = small_config("mean_squared_error", 8, 4);
    config.train.clip_grad_norm = 0;  // the norm travels with the results then
    config.train.optimizer.type = type;
    if (type == OptimizerType::sgd) {
      config.train.optimizer.momentum = 0.9;
      config.train.optimizer.nesterov = true;
    }
    INFO(to_string(type));
    const RunRecord reference = reference_run(model, data, config);
    CHECK(reference.results[0].gradient_norm > 0);
    for (int stages = 2; stages <= 4; ++stages)
      CHECK(difference(reference, model, data, with_pipeline(config, stages, "1f1b")) == "");
  }
}

TEST_CASE("frozen parameters keep their initial values, whole frozen stages too", "[parity]") {
  const Model model = mlp_with_skip(0.1, true);
  const DataSplits data = regression_data(21, 6, 3);
  for (const std::vector<std::string>& frozen :
       {std::vector<std::string>{"fc.0.*"}, {"fc.0.*", "fc.1.*", "norm.*"}, {"fc.1.weight", "*.bias"}, {"out.*"}}) {
    INFO(join(frozen));
    Config config = small_config("mean_squared_error", 8, 4);
    config.train.freeze = frozen;
    const RunRecord reference = reference_run(model, data, config);
    for (int stages = 1; stages <= 4; ++stages) {
      Trainer trainer(model, data, with_pipeline(config, stages, "1f1b"));
      const RunRecord tested = record_run(trainer);
      CHECK(first_difference(reference, tested, trainer.graph()).value_or("") == "");
      for (const FinalParameter& parameter : tested.parameters) {
        const ParameterInfo& info = trainer.graph().parameters[parameter.index];
        CHECK(at::equal(parameter.value, initial_value(info, config.seed, at::kCPU)) != info.trainable);
      }
    }
  }
}

TEST_CASE("a parameter group scales the learning rate of what it matches only", "[parity]") {
  const Model model = mlp_with_skip(0.0, false);
  Config config = small_config("mean_squared_error", 8, 2);
  config.train.optimizer.groups = {{{"out.*"}, 0.0, 0.0}};
  Trainer trainer(model, regression_data(16, 6, 3), config);
  const auto values = values_of(trainer, trainer.fit());
  for (const ParameterInfo& info : trainer.graph().parameters) {
    INFO(info.name);
    CHECK(at::equal(values.at(info.name), initial_value(info, config.seed, at::kCPU)) ==
          (info.name.rfind("out.", 0) == 0));
  }
}

TEST_CASE("an exception in a layer names worker, stage, layer, step, micro-batch, action and shapes", "[parity]") {
  const std::string message = failure(with_odd_layer(Odd::Habit::throws));
  for (const char* part : {"worker 1", "stage 1", "step 2", "1F1", "layer 'odd' (odd)", "Float [2, 16]", "no more"}) {
    INFO(message);
    CHECK_THAT(message, Catch::Contains(part));
  }
}

TEST_CASE("a worker over its memory limit names layer, asked, limit and what it holds", "[parity]") {
  Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 3, "1f1b");
  config.workers.memory_limit = 3000;
  Trainer trainer(mlp_with_skip(0.0, false), regression_data(16, 6, 3), config);
  CHECK_THROWS_WITH(trainer.fit(), Catch::Contains("over the memory limit of this worker: asked for") &&
                                       Catch::Contains("parameters") &&
                                       Catch::Contains("workers.memory_limit: 2.93 KiB"));
}

TEST_CASE("a limit that suffices changes no bit, and the peak says what it was for", "[parity]") {
  const Model model = mlp_with_skip(0.0, true);
  const DataSplits data = regression_data(16, 6, 3);
  Config config = small_config("mean_squared_error", 8, 4);
  const RunRecord reference = reference_run(model, data, config);
  config.workers.memory_limit = 64 << 20;
  CHECK(difference(reference, model, data, with_pipeline(config, 3, "1f1b")) == "");

  Trainer trainer(model, data, with_pipeline(config, 3, "1f1b"));
  const RunRecord record = record_run(trainer);
  for (const WorkerReport& worker : record.results.back().workers) {
    std::int64_t parameters = 0;
    for (int layer = trainer.partition().first_layer[worker.row];
         layer < trainer.partition().first_layer[worker.row + 1]; ++layer)
      parameters += 4 * trainer.graph().elements_of_layer(layer);
    const auto of = [&](MemoryKind kind) { return worker.peak_by_kind[static_cast<std::size_t>(kind)]; };
    INFO("worker " << worker.row);
    CHECK(of(MemoryKind::parameters) == parameters + 4);  // and the stage's anchor
    CHECK(of(MemoryKind::gradients) <= parameters);       // the peak may come before the last of them
    CHECK(of(MemoryKind::optimizer) >= 2 * parameters);
    CHECK(of(MemoryKind::activations) > 0);
    CHECK(of(MemoryKind::slots) == 0);  // in process nothing is received into one
    CHECK(std::accumulate(worker.peak_by_kind.begin(), worker.peak_by_kind.end(), std::int64_t{0}) ==
          worker.peak_bytes);
  }
}

TEST_CASE("a layer that writes to its input is named", "[parity]") {
  CHECK_THAT(failure(with_odd_layer(Odd::Habit::writes)), Catch::Contains("layer 'odd' (odd) wrote to its input 'x'"));
}

TEST_CASE("the first non-finite value is named, and one more step is run", "[parity]") {
  Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 3, "1f1b");
  config.train.eval_every = 0;
  config.train.steps = 50;
  Trainer trainer(with_odd_layer(Odd::Habit::not_a_number), regression_data(16, 6, 3), config);
  const RunRecord record = record_run(trainer);
  REQUIRE(record.results.size() == 3);
  CHECK_FALSE(record.results[0].non_finite.found());
  CHECK(record.results[1].non_finite.layer == 4);
  CHECK(record.results[1].non_finite.micro_batch == 1);
  CHECK(record.results[1].non_finite.what == "output");
}

TEST_CASE("what does not fit together is named before anything is built", "[parity]") {
  const DataSplits data = regression_data(16, 6, 3);
  const Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 2, "1f1b");
  Model model = mlp_with_skip(0.0, false);

  SECTION("widths") {
    model.layers[3].layer = std::make_shared<Linear>(15, 16);
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("layer 'fc.1' (linear)") && Catch::Contains("15"));
  }
  SECTION("entries") {
    model.layers[3].inputs = {"y"};
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("reads the entry 'y'"));
  }
  SECTION("layer names") {
    model.layers[3].name = "fc.0";
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("another layer has this name"));
  }
  SECTION("loss") {
    model.layers.pop_back();
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("does not fit the model and its data"));
  }
  SECTION("stages") {
    CHECK_THROWS_WITH(Trainer(model, data, with_pipeline(config, 99, "1f1b")), Catch::Contains("use at most"));
  }
  SECTION("frozen patterns") {
    Config frozen = config;
    frozen.train.freeze = {"fc.9.*"};
    CHECK_THROWS_WITH(Trainer(model, data, frozen), Catch::Contains("no parameter matches 'fc.9.*'"));
  }
  SECTION("everything frozen") {
    Config frozen = config;
    frozen.train.freeze = {"*"};
    CHECK_THROWS_WITH(Trainer(model, data, frozen), Catch::Contains("nothing to train"));
  }
}

TEST_CASE("a decider that is idle far longer than the watchdog's limit ends no job, and nothing is said", "[parity]") {
  check_idling(with_pipeline(small_config("mean_squared_error", 8, 4), 3, "1f1b"), {});
}

namespace {

/// tanh of a product with one vector, the same in all layers of the model.
class SharedScale : public Layer {
 public:
  explicit SharedScale(bool first) : first_(first) {}
  std::string type() const override { return "shared_scale"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    return {{{"scale", {inputs[0].sizes.back()}, Init::normal(1.0), first_ ? "" : "a.scale"}}, {inputs[0]}};
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {at::tanh(inputs[0] * context.leaf("scale"))};
  }

 private:
  bool first_;
};

}  // namespace

TEST_CASE("the gradients of a parameter that three layers share are added in layer order", "[parity]") {
  const Model model{"shared",
                    {{"a", std::make_shared<SharedScale>(true)},
                     {"b", std::make_shared<SharedScale>(false)},
                     {"c", std::make_shared<SharedScale>(false)}}};
  const DataSplits data = regression_data(8, 64, 64);
  Config config = small_config("mean_squared_error", 8, 1);
  config.train.steps = 1;
  config.train.eval_every = 0;

  // By hand: a leaf for each layer.
  const Tensors batch = data.train->read(Sampler(8, config.seed).batch(0, 8));
  const Trainer whole(model, data, one_worker(config));
  std::vector<at::Tensor> scales;
  for (int layer = 0; layer < 3; ++layer)
    scales.push_back(initial_value(whole.graph().parameters[0], config.seed, at::kCPU).requires_grad_(true));
  at::Tensor output = batch[0];
  for (const at::Tensor& scale : scales) output = at::tanh(output * scale);
  const Loss& loss = *whole.losses()[0];
  const float seed = 1.0f / static_cast<float>(loss.denominator(batch[1]));
  const Tensors parts = torch::autograd::grad({loss.numerator(output, batch[1])}, scales, {at::full({}, seed)});
  const std::uint64_t in_order = hash_of(parts[0] + parts[1] + parts[2]);
  REQUIRE(in_order != hash_of(parts[0] + (parts[1] + parts[2])));
  REQUIRE(in_order != hash_of(parts[0] + parts[2] + parts[1]));

  for (const int stages : {1, 2, 3}) {
    Trainer trainer(model, data, with_pipeline(config, stages, "1f1b"));
    RunOptions options;
    options.record_hashes = true;
    int holders = 0;
    for (const ParameterHash& of : trainer.fit(options).hashes) {
      if (of.what != Hashed::gradient) continue;
      CHECK(of.hash == in_order);
      ++holders;
    }
    CHECK(holders == stages);
  }
}

TEST_CASE("a squared norm is the sum of its blocks in order, and a block's is that of 16 lanes", "[parity]") {
  const at::Tensor values =
      at::randn({3 * static_cast<std::int64_t>(kNormBlock) + 1001}, at::make_generator<at::CPUGeneratorImpl>(5));
  double of_blocks = 0;
  for (std::int64_t begin = 0; begin < values.numel(); begin += static_cast<std::int64_t>(kNormBlock))
    of_blocks +=
        squared_norm(values.narrow(0, begin, std::min<std::int64_t>(kNormBlock, values.numel() - begin)).contiguous());
  CHECK(squared_norm(values) == of_blocks);

  std::array<double, 16> lanes{};
  const at::Tensor block = values.narrow(0, 0, 1000).contiguous();
  const float* data = block.const_data_ptr<float>();
  for (std::size_t i = 0; i < 992; ++i) lanes[i % 16] += double{data[i]} * data[i];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  for (std::size_t i = 992; i < 1000; ++i) sum += double{data[i]} * data[i];
  CHECK(squared_norm(block) == sum);
}

TEST_CASE("weights are updated without a worker: shared sums, norm, clipping, update, state", "[parity]") {
  const Trainer whole(small_gpt(1, 0.0, /*tied=*/true), token_data(16, 8, 11),
                      one_worker(small_config("sparse_categorical_cross_entropy", 8, 1)));
  const ModelGraph& graph = whole.graph();
  TrainConfig sgd;
  sgd.optimizer.type = OptimizerType::sgd;
  MemoryPool pool;
  const MemoryPool::Scope memory(pool);
  Weights weights(graph, whole.partition(), {StageId(0)}, {.seed = 7, .make_updater = choose_optimizer(sgd).maker()},
                  pool);
  REQUIRE(weights.parameters().size() == graph.parameters.size());
  std::vector<at::Tensor> before;
  for (const Parameter* parameter : weights.parameters()) before.push_back(parameter->value.clone());
  for (std::vector<Parameter>& held : weights.of(StageId(0)).parameters)
    for (Parameter& parameter : held) parameter.accumulate(at::ones_like(parameter.value));
  CHECK(weights.gradient_bytes() > 4 * graph.parameter_count());  // the tied one twice
  REQUIRE(whole.partition().topology.shared.size() == 1);
  weights.sum_shared(0);
  const SquaredNorms norms = weights.squared_norms();
  REQUIRE(norms.parameters.size() == graph.parameters.size());
  for (std::size_t i = 0; i < norms.parameters.size(); ++i) {
    const ParameterInfo& info = graph.parameters[norms.parameters[i]];
    const double each = info.holders.size() > 1 ? 4.0 : 1.0;
    CHECK(norms.squares.const_data_ptr<double>()[i] == each * static_cast<double>(before[i].numel()));
  }
  weights.update_for_now(0.5, 1);
  weights.amend(0.5, 1, /*coefficient=*/at::full({}, 0.25, at::kDouble));
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double each = graph.parameters[i].holders.size() > 1 ? 2.0 : 1.0;
    CHECK(at::equal(weights.parameters()[i]->value, before[i] - 0.5 * 0.25 * each));
  }
  weights.forget_gradients();
  CHECK(weights.gradient_bytes() == 0);
  CHECK(weights.state().weights.size() == graph.parameters.size() + graph.buffers.size());
  CHECK(weights.state().optimizer.empty());
}

TEST_CASE("an evaluation without an evaluation set is the caller's mistake", "[parity]") {
  Config config = one_worker(small_config("mean_squared_error", 8, 1));
  config.train.eval_every = 0;
  DataSplits data = regression_data(16, 6, 3);
  data.eval = nullptr;
  Trainer trainer(mlp_with_skip(0.0, false), data, config);
  CHECK_THROWS_WITH(trainer.evaluate(), Catch::Contains("got no evaluation set, expected one to evaluate"));
}

TEST_CASE("what a program adds to the tables can be named by its config", "[parity]") {
  ConfigSource source;
  source.config = small_config("mean_squared_error", 8, 2);
  source.config->model =
      load_config_text("{type: mlp, inputs: 6, width: 4, layers: 1, outputs: 3, activation: sine}", "m");
  CHECK_THROWS_WITH(source.make_model(*source.config), Catch::Contains("got sine, expected one of relu"));
  source.extend = [](Registry& registry) {
    registry.activations.add({"sine", "sin(x)", [](const at::Tensor& x) { return at::sin(x); }});
  };
  CHECK(source.make_model(*source.config).layers.at(1).layer->type() == "sine");
}
