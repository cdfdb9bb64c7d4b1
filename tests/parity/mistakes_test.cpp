// SPDX-License-Identifier: Apache-2.0
//
// Mistakes of whoever writes a layer, a data set or a Config from C++: the message names the place that is wrong and no
// other, says nothing of an internal error, and the exit code is that of a user's input.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <fstream>
#include <limits>

#include "runtime/layer/layers.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// A layer made of two functions.
class Custom : public Layer {
 public:
  using Describe = std::function<LayerDescription(const EntrySpec&)>;
  using Forward = std::function<Tensors(const Tensors&, LayerContext&)>;
  Custom(Describe describe, Forward forward) : describe_(std::move(describe)), forward_(std::move(forward)) {}
  std::string type() const override { return "custom"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return describe_(inputs[0]); }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override { return forward_(inputs, context); }

 private:
  Describe describe_;
  Forward forward_;
};

LayerDescription with_scale(const EntrySpec& input) {
  return {{{"scale", {input.sizes.back()}, Init::ones(), ""}}, {input}};
}
LayerDescription without_parameters(const EntrySpec& input) {
  return {{}, {input}};
}

/// in - custom - act - out: `custom` is on the stage of its own when there are four.
Model with_custom(Custom::Describe describe, Custom::Forward forward) {
  Model model{"mine", {}};
  model.layers.push_back({"in", std::make_shared<Linear>(6, 8)});
  model.layers.push_back({"mine", std::make_shared<Custom>(std::move(describe), std::move(forward))});
  model.layers.push_back({"act", std::make_shared<Activation>("tanh")});
  model.layers.push_back({"out", std::make_shared<Linear>(8, 3)});
  return model;
}

Config plain_config(int stages) {
  Config config;
  config.train.steps = 3;
  config.train.batch = 8;
  config.train.micro_batches = 4;
  config.train.loss = "mean_squared_error";
  return with_pipeline(config, stages, "1f1b");
}

std::string refusal(const Model& model, const DataSplits& data, const Config& config) {
  try {
    Trainer trainer(model, data, config);
    trainer.fit();
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(error.exit_code() == ExitCode::user_input);
    CHECK_THAT(error.what(), !Catch::Contains("internal error"));
    return error.what();
  }
  return "";
}

/// The same for one stage and for a stage per layer, each of which has to name layer `mine` and no other.
void check_blames_mine(Custom::Describe describe, Custom::Forward forward, const std::vector<std::string>& parts) {
  for (const int stages : {1, 4}) {
    const std::string message =
        refusal(with_custom(describe, forward), regression_data(16, 6, 3), plain_config(stages));
    INFO(stages << " stages: " << message);
    CHECK_THAT(message, Catch::Contains("'mine' (custom)"));
    for (const char* other : {"'in'", "'act'", "'out'"}) CHECK_THAT(message, !Catch::Contains(other));
    for (const std::string& part : parts) CHECK_THAT(message, Catch::Contains(part));
  }
}

/// What a user's own data set may do.
class Samples : public Dataset {
 public:
  using Read = std::function<Tensors(const std::vector<std::int64_t>&)>;
  explicit Samples(Read read, std::int64_t size = 16) : read_(std::move(read)), size_(size) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {{"x", at::kFloat, {rows, 6}, false}, {"targets", at::kFloat, {rows, 3}, false}};
  }
  std::int64_t size() const override { return size_; }
  Tensors read(const std::vector<std::int64_t>& samples) const override { return read_(samples); }

 private:
  Read read_;
  std::int64_t size_;
};

std::string refusal_of_data(const Samples::Read& read) {
  return refusal(mlp_with_skip(0.0, false), {std::make_shared<Samples>(read), nullptr}, plain_config(2));
}

Tensors good_rows(const std::vector<std::int64_t>& samples) {
  const auto rows = static_cast<std::int64_t>(samples.size());
  return {at::ones({rows, 6}), at::ones({rows, 3})};
}

}  // namespace

TEST_CASE("a parameter or buffer that a layer did not declare is named, with those that it did", "[parity]") {
  check_blames_mine(with_scale,
                    [](const Tensors& x, LayerContext& context) { return Tensors{x[0] * context.leaf("scael")}; },
                    {"asks for the parameter 'scael'", "it declares scale; did you mean 'scale'?"});
  check_blames_mine(
      without_parameters,
      [](const Tensors& x, LayerContext& context) { return Tensors{linear(context, x[0], "weight", "")}; },
      {"asks for the parameter 'weight'", "it declares none"});
  check_blames_mine(without_parameters,
                    [](const Tensors& x, LayerContext& context) { return Tensors{x[0] + context.buffer("mean")}; },
                    {"asks for the buffer 'mean'", "it declares none"});
}

TEST_CASE("a parameter that forward() does not use is named", "[parity]") {
  check_blames_mine(with_scale, [](const Tensors& x, LayerContext&) { return Tensors{x[0] * 2}; },
                    {"its parameter mine.scale got no gradient", "freeze it"});
  // Used, but not differentiably.
  check_blames_mine(
      with_scale,
      [](const Tensors& x, LayerContext& context) { return Tensors{x[0] * context.parameter("scale").value}; },
      {"its parameter mine.scale got no gradient"});
}

TEST_CASE("a layer that cuts the graph is named, not the layers before it that learn nothing by it", "[parity]") {
  check_blames_mine(
      without_parameters, [](const Tensors& x, LayerContext&) { return Tensors{x[0].detach() * 2}; },
      {"its output 'x' depends neither on its inputs nor on its parameters", "in.weight would get no gradient"});
  check_blames_mine(with_scale,
                    [](const Tensors& x, LayerContext& context) {
                      const at::NoGradGuard no_grad;
                      return Tensors{x[0] * context.leaf("scale")};
                    },
                    {"would get no gradient"});
}

TEST_CASE("a cut graph that leaves every parameter another way trains, to the same bits for every cut", "[parity]") {
  Model model = with_custom(without_parameters, [](const Tensors& x, LayerContext&) { return Tensors{x[0].detach()}; });
  model.layers[0].outputs = {"first"};
  model.layers[1].inputs = {"first"};
  model.layers.insert(model.layers.begin() + 2, {"join", std::make_shared<Add>(), {"x", "first"}, {"x"}});
  const DataSplits data = regression_data(21, 6, 3);
  const Config config = small_config("mean_squared_error", 8, 4);
  const RunRecord reference = reference_run(model, data, config);
  for (const int stages : {2, 5})
    CHECK(difference(reference, model, data, with_pipeline(config, stages, "1f1b")) == "");
}

TEST_CASE("what forward() returns against what describe() says is the layer's, not the next one's", "[parity]") {
  const auto returns = [](const std::function<Tensors(const at::Tensor&)>& make, const std::string& part) {
    check_blames_mine(without_parameters, [make](const Tensors& x, LayerContext&) { return make(x[0]); }, {part});
  };
  returns([](const at::Tensor& x) { return Tensors{x.narrow(1, 0, 7)}; },
          "forward() returned Float [2, 7] for its output 'x', describe() says x Float [2, 8]");
  returns([](const at::Tensor& x) { return Tensors{x.to(at::kLong)}; }, "forward() returned Long [2, 8]");
  returns([](const at::Tensor& x) { return Tensors{x, x}; }, "forward() returned 2 tensors, describe() says 1");
  returns([](const at::Tensor&) { return Tensors{at::Tensor()}; }, "forward() returned no tensor for its output 'x'");
  returns(
      [](const at::Tensor& x) {
        x.detach().add_(1);
        return Tensors{x * 1.0};
      },
      "wrote to its input");
}

TEST_CASE("a describe() that fails, and parameters that no loss depends on, are found before training", "[parity]") {
  check_blames_mine([](const EntrySpec&) -> LayerDescription { throw std::out_of_range("nothing at 3"); },
                    [](const Tensors& x, LayerContext&) { return x; }, {"its describe() failed: nothing at 3"});
  Model model = mlp_with_skip(0.0, false);
  model.layers.push_back({"aside", std::make_shared<Linear>(3, 3), {"x"}, {"y"}});
  CHECK_THROWS_WITH(Trainer(model, regression_data(16, 6, 3), plain_config(1)),
                    Catch::Contains("'aside' (linear): no loss depends on its output 'y'") &&
                        Catch::Contains("aside.weight would not be trained"));
  model = mlp_with_skip(0.0, false);
  model.heads.clear();
  CHECK_THROWS_WITH(Trainer(model, regression_data(16, 6, 3), plain_config(1)), Catch::Contains("has no heads"));
  model = mlp_with_skip(0.0, false);
  model.layers[0].layer = nullptr;
  CHECK_THROWS_WITH(Trainer(model, regression_data(16, 6, 3), plain_config(1)),
                    Catch::Contains("layer 'fc.0' has no Layer"));
}

TEST_CASE("a Config from C++ keeps the rules of one from YAML", "[parity]") {
  const auto refused = [](const std::function<void(Config&)>& change) {
    Config config = plain_config(1);
    change(config);
    return refusal(mlp_with_skip(0.0, false), regression_data(16, 6, 3), config);
  };
  CHECK(refused([](Config& c) { c.train.micro_batches = 9; }) ==
        "Config: train.micro_batches: got 9, expected at most train.batch, which is 8");
  CHECK(refused([](Config& c) { c.train.batch = 0; }) == "Config: train.batch: got 0, expected an integer >= 1");
  CHECK_THAT(refused([](Config& c) { c.train.eval_every = 1, c.train.eval_batch = -1; }),
             Catch::Contains("train.eval_batch: got -1"));
  CHECK_THAT(refused([](Config& c) { c.workers.devices = {"gpu"}; }), Catch::Contains("workers.devices[0]: got gpu"));
}

TEST_CASE("an evaluation batch of fewer samples than micro-batches is evaluated", "[parity]") {
  Config config = plain_config(2);
  config.train.eval_every = 1;
  config.train.eval_batch = 2;
  Trainer trainer(mlp_with_skip(0.0, false), regression_data(16, 6, 3), config);
  CHECK_NOTHROW(trainer.fit());
}

TEST_CASE("a data set that does not keep its word is named, not the layer that reads it", "[parity]") {
  const auto check = [](const Samples::Read& read, const std::string& part) {
    const std::string message = refusal_of_data(read);
    INFO(message);
    CHECK_THAT(message, Catch::Contains(part));
    CHECK_THAT(message, !Catch::Contains("layer"));
  };
  using Rows = const std::vector<std::int64_t>&;
  check(
      [](Rows samples) {
        return Tensors{good_rows(samples)[0].narrow(1, 0, 5), good_rows(samples)[1]};
      },
      "the data set reads 'x' of the samples");
  check(
      [](Rows samples) {
        return Tensors{good_rows(samples)[0].narrow(1, 0, 5), good_rows(samples)[1]};
      },
      "as Float [8, 5], its entries() promises x Float [8, 6]");
  check(
      [](Rows samples) {
        return Tensors{good_rows(samples)[0].to(at::kDouble), good_rows(samples)[1]};
      },
      "as Double [8, 6]");
  check([](Rows samples) { return Tensors{good_rows(samples)[0]}; }, "reads 1 entries of the samples");
  check([](Rows samples) { return Tensors{good_rows(samples)[0], at::Tensor()}; }, "as no tensor");
  check(
      [](Rows samples) {
        return Tensors{good_rows(samples)[0], good_rows(samples)[1] * std::numeric_limits<float>::infinity()};
      },
      "the target is inf, but the loss mean_squared_error is defined for finite numbers");
  CHECK_THAT(refusal(mlp_with_skip(0.0, false), {std::make_shared<Samples>(good_rows, 0), nullptr}, plain_config(1)),
             Catch::Contains("the training data has no samples"));
  CHECK_THAT(refusal(mlp_with_skip(0.0, false), {nullptr, nullptr}, plain_config(1)),
             Catch::Contains("there is no training data"));
}

TEST_CASE("a data set that fails to read says so, as a fault of the run", "[parity]") {
  Trainer trainer(
      mlp_with_skip(0.0, false),
      {std::make_shared<Samples>([](const auto&) -> Tensors { throw std::runtime_error("disk gone"); }), nullptr},
      plain_config(1));
  try {
    trainer.fit();
    FAIL("it trained");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::fault);
    CHECK_THAT(error.what(),
               Catch::Contains("the data set failed to read the samples") && Catch::Contains("disk gone"));
  }
}

TEST_CASE("a target that its loss is not defined for is named by file, line, sample and value", "[parity]") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/t.csv";
  const auto refused = [&](const std::string& labels, const std::string& task, const std::string& loss, int outputs) {
    std::ofstream file(path);
    file << "a,y\n\n";
    for (const char label : labels)
      file << "0.5," << (label == 'm' ? "-1" : label == 'w' ? "255" : std::string(1, label)) << "\n";
    file.close();
    const DataSplits data =
        open_data(load_config_text("{type: csv, train: " + path + ", targets: [y], task: " + task + "}", "test"), {});
    Config config = plain_config(1);
    config.train.loss = loss;
    return refusal(model_of(concat("type: mlp, inputs: 1, width: 4, layers: 1, outputs: ", outputs)), data, config);
  };
  const std::string binary = "binary_cross_entropy";
  CHECK(refused("0101", "regression", binary, 1) == "");
  CHECK(refused("0131", "regression", binary, 1) ==
        path +
            ":5: sample 2: the target is 3, but the loss binary_cross_entropy is defined for numbers from 0 to 1; map "
            "labels -1 and 1 to 0 and 1, divide values 0 to 255 by 255, and use sparse_categorical_cross_entropy for "
            "classes 0, 1, 2, ...");
  CHECK_THAT(refused("1m1m", "regression", binary, 1), Catch::Contains(":4: sample 1: the target is -1"));
  CHECK_THAT(refused("0w", "regression", binary, 1), Catch::Contains(":4: sample 1: the target is 255"));
  CHECK_THAT(refused("123", "classification", "sparse_categorical_cross_entropy", 3),
             Catch::Contains("3 classes, the targets have classes up to 3"));
}

TEST_CASE("classes below 0 that are not -100 are named", "[parity]") {
  class Classes : public Dataset {
   public:
    explicit Classes(std::int64_t odd) : odd_(odd) {}
    std::vector<EntrySpec> entries(std::int64_t rows) const override {
      return {{"x", at::kFloat, {rows, 6}, false}, {"targets", at::kLong, {rows}, false}};
    }
    std::int64_t size() const override { return 16; }
    Tensors read(const std::vector<std::int64_t>& samples) const override {
      at::Tensor targets = at::tensor(samples);
      targets = at::where(targets == 11, at::full_like(targets, odd_), targets.remainder(3));
      return {at::ones({targets.size(0), 6}), targets};
    }

   private:
    std::int64_t odd_;
  };
  Config config = plain_config(2);
  config.train.loss = "sparse_categorical_cross_entropy";
  const auto refused = [&](std::int64_t odd) {
    return refusal(mlp_with_skip(0.0, false), {std::make_shared<Classes>(odd), nullptr}, config);
  };
  CHECK(refused(-100) == "");
  CHECK(refused(2) == "");
  for (const std::int64_t odd : {-1, 3, 255})
    CHECK_THAT(refused(odd), Catch::Contains(concat("sample 11: the target is ", odd, ", but the loss")) &&
                                 Catch::Contains("classes from 0 to 2") && Catch::Contains("subtract 1"));
}
