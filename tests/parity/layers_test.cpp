// SPDX-License-Identifier: Apache-2.0
//
// Layers one by one against what a LibTorch user would write: values and gradients bit for bit.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <map>

#include "runtime/engine/stage.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/norms.hpp"
#include "runtime/layer/operators.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/training/losses.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

at::Tensor drawn(const std::vector<std::int64_t>& sizes, const std::string& name) {
  const RandomScope scope(mix_seed(11, 0, 0, name));
  return at::randn(sizes);
}

EntrySpec spec_of(const at::Tensor& x) {
  return {"x", x.scalar_type(), x.sizes().vec()};
}

// One layer with its state, as the engine would hold it.
class Held {
 public:
  Held(const Layer& layer, const at::Tensor& x, at::ScalarType precision = at::kFloat)
      : layer_(layer), precision_(precision), description_(layer.describe({spec_of(x)})) {
    for (const ParameterSpec& spec : description_.parameters) {
      Parameter parameter;
      parameter.local_name = parameter.name = spec.name;
      parameter.value = drawn(spec.sizes, spec.name);
      parameters_.push_back(std::move(parameter));
    }
    for (const BufferSpec& spec : description_.buffers)
      buffers_.push_back({spec.name, spec.name, 0, at::full(spec.sizes, spec.value, spec.dtype)});
  }

  struct Run {
    at::Tensor output, input_gradient;
    Tensors collected;
  };

  // Forward, I and W of one micro-batch, with a drawn output gradient.
  Run train(const at::Tensor& x, bool wants_input_gradient = true) {
    WeightGradQueue queue;
    const at::Tensor anchor = at::zeros({}).requires_grad_(true),
                     leaf = x.detach().requires_grad_(wants_input_gradient);
    LayerContext context(parameters_, queue, anchor, /*training=*/true, precision_);
    context.lend_buffers(buffers_);
    Run run;
    run.output = layer_.forward({leaf}, context)[0];
    CHECK(run.output.sizes() == at::IntArrayRef(layer_.describe({spec_of(x)}).outputs[0].sizes));
    Tensors wanted = {anchor};
    if (wants_input_gradient) wanted.push_back(leaf);
    for (const ParameterLeaf& used : context.leaves()) wanted.push_back(used.leaf);
    const Tensors gradients =
        torch::autograd::grad({run.output}, wanted, {output_gradient(run.output)},
                              /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    if (wants_input_gradient) run.input_gradient = gradients[1];
    for (std::size_t i = 0; i < context.leaves().size(); ++i)
      context.leaves()[i].parameter->accumulate(gradients[i + 1 + (wants_input_gradient ? 1 : 0)]);
    for (const Parameter& parameter : parameters_)
      CHECK(parameter.gradient.defined() == (context.leaves().size() > 0 || steps_ > 0));  // split: only in W
    queue.run();
    ++steps_;
    run.collected = context.collected();
    return run;
  }

  at::Tensor evaluate(const at::Tensor& x) {
    WeightGradQueue queue;
    LayerContext context(parameters_, queue, {}, /*training=*/false, precision_);
    context.lend_buffers(buffers_);
    const at::NoGradGuard no_grad;
    return layer_.forward({x}, context)[0];
  }

  static at::Tensor output_gradient(const at::Tensor& output) {
    return drawn(output.sizes().vec(), "output gradient").to(output.scalar_type());
  }
  std::vector<Parameter>& parameters() { return parameters_; }
  std::vector<Buffer>& buffers() { return buffers_; }

 private:
  const Layer& layer_;
  at::ScalarType precision_;
  LayerDescription description_;
  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  int steps_ = 0;
};

using Plain = std::function<at::Tensor(const at::Tensor& x, const Tensors& parameters)>;

// Two micro-batches of different sizes, gradients added.
void expect_bits_of(const Layer& layer, const std::vector<std::int64_t>& sizes, const Plain& plain) {
  at::set_num_threads(1);
  std::vector<std::int64_t> fewer = sizes;
  fewer[0] -= 1;
  const Tensors batches = {drawn(sizes, "x"), drawn(fewer, "x2")};
  Held held(layer, batches[0]);
  Tensors leaves;
  for (const Parameter& parameter : held.parameters()) leaves.push_back(parameter.value.clone().requires_grad_(true));
  for (const at::Tensor& x : batches) {
    const Held::Run ours = held.train(x);
    const at::Tensor input = x.clone().requires_grad_(true), output = plain(input, leaves);
    output.backward(Held::output_gradient(output));
    CHECK(at::equal(ours.output, output));
    CHECK(at::equal(ours.input_gradient, input.grad()));
  }
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    INFO(held.parameters()[i].name);
    CHECK(at::equal(held.parameters()[i].gradient, leaves[i].grad()));
  }
}

std::optional<at::Tensor> bias_of(const Tensors& parameters) {
  return parameters.size() > 1 ? std::optional<at::Tensor>(parameters[1]) : std::nullopt;
}

std::string refusal(const Layer& layer, const EntrySpec& input) {
  try {
    layer.describe({input});
  } catch (const ModelError& error) {
    return error.what();
  }
  return "";
}

/// GPT-2's Conv1D, whose weight is stored as [in, out].
class Conv1dOfGpt2 : public Layer {
 public:
  std::string type() const override { return "conv1d_of_gpt2"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    EntrySpec output = inputs[0];
    output.sizes.back() = 7;
    return {{{"weight", {5, 7}, Init::normal(1), ""}, {"bias", {7}, Init::zeros(), ""}}, {output}};
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {linear(context, inputs[0], "weight", "bias", WeightLayout::in_out)};
  }
};

}  // namespace

TEST_CASE("a linear layer has the bits of at::addmm in both layouts, with I and W split", "[parity]") {
  const auto rows = [](const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); };
  const auto back = [](const at::Tensor& y, const at::Tensor& x) {
    std::vector<std::int64_t> sizes = x.sizes().vec();
    sizes.back() = y.size(-1);
    return y.reshape(sizes);
  };
  for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{6, 5}, {4, 3, 5}}) {
    expect_bits_of(Conv1dOfGpt2(), sizes, [&](const at::Tensor& x, const Tensors& parameters) {
      return back(at::addmm(parameters[1], rows(x), parameters[0]), x);
    });
    expect_bits_of(Linear(5, 7), sizes, [&](const at::Tensor& x, const Tensors& parameters) {
      return back(at::addmm(parameters[1], rows(x), parameters[0].t()), x);
    });
  }
}

TEST_CASE("an embedding has the bits of at::embedding, rows that come often or never included", "[parity]") {
  const Embedding layer(6, 3);
  const Tensors batches = {at::tensor(std::vector<std::int64_t>{1, 5, 1, 1, 0, 5}).reshape({2, 3}),
                           at::tensor(std::vector<std::int64_t>{4, 4, 5}).reshape({1, 3})};
  Held held(layer, batches[0]);
  const at::Tensor weight = held.parameters()[0].value.clone().requires_grad_(true);
  for (const at::Tensor& x : batches) {
    const at::Tensor output = at::embedding(weight, x);
    output.backward(Held::output_gradient(output));
    CHECK(at::equal(held.train(x, false).output, output));
  }
  CHECK(at::equal(held.parameters()[0].gradient, weight.grad()));
}

/// Rows of 40, of which number 5 learns nothing where it is looked up.
class Padded : public Layer {
 public:
  std::string type() const override { return "padded"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    return described({{"", at::kFloat, {inputs[0].sizes[0], inputs[0].sizes[1], 3}}}, part_);
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override { return {part_(context, inputs[0])}; }

 private:
  EmbeddingPart part_{"", 40, 3, Init::normal(1.0), /*padding=*/5};
};

TEST_CASE("micro-batches add the rows of a large table that they use, padding left out, with the bits of LibTorch",
          "[parity]") {
  const Padded layer;
  const auto row = [](std::vector<std::int64_t> tokens) { return at::tensor(tokens).view({2, -1}); };
  const Tensors batches = {row({1, 5, 39, 5}), row({39, 0, 5, 1, 1, 39}), row({5, 5}), row({2, 3, 2, 39})};
  Held held(layer, batches[0]);
  const at::Tensor weight = held.parameters()[0].value.clone().requires_grad_(true);
  for (const at::Tensor& x : batches) {
    const at::Tensor output = at::embedding(weight, x, /*padding_idx=*/5);
    output.backward(Held::output_gradient(output));
    held.train(x, false);
    CHECK(at::equal(held.parameters()[0].gradient, weight.grad()));
  }
  CHECK(at::equal(weight.grad()[5], at::zeros({3})));
}

TEST_CASE("convolutions have the bits of LibTorch, with I and W split", "[parity]") {
  struct Case {
    Extent kernel, stride, padding, dilation;
    std::int64_t groups;
    bool bias;
  };
  for (const Case& c :
       {Case{{3}, {1}, {1}, {1}, 1, true}, Case{{3}, {2}, {1}, {1}, 1, false}, Case{{1}, {1}, {0}, {1}, 1, true},
        Case{{3, 2}, {2, 1}, {0, 1}, {2, 1}, 2, true}, Case{{3}, {1}, {1}, {1}, 4, true}}) {
    INFO("kernel " << join(c.kernel) << " stride " << join(c.stride) << " groups " << c.groups);
    const Conv2d layer(4, 8, c.kernel, {c.stride, c.padding, c.dilation, c.groups, c.bias, {0}});
    expect_bits_of(layer, {5, 4, 9, 8}, [&](const at::Tensor& x, const Tensors& p) {
      return at::conv2d(x, p[0], bias_of(p), c.stride, c.padding, c.dilation, c.groups);
    });
  }
  expect_bits_of(Conv1d(4, 6, {3}, {{2}, {1}, {1}, 2, true, {0}}), {5, 4, 11},
                 [](const at::Tensor& x, const Tensors& p) { return at::conv1d(x, p[0], p[1], 2, 1, 1, 2); });
}

TEST_CASE("transposed convolutions have the bits of LibTorch, with I and W split", "[parity]") {
  expect_bits_of(ConvTranspose2d(6, 4, {2}, {{2}, {0}, {1}, 1, true, {0}}), {5, 6, 5, 4},
                 [](const at::Tensor& x, const Tensors& p) { return at::conv_transpose2d(x, p[0], p[1], 2); });
  expect_bits_of(
      ConvTranspose2d(6, 4, {3}, {{2}, {1}, {1}, 2, false, {1}}), {5, 6, 5, 4},
      [](const at::Tensor& x, const Tensors& p) { return at::conv_transpose2d(x, p[0], std::nullopt, 2, 1, 1, 2); });
  expect_bits_of(ConvTranspose1d(4, 6, {3}, {{2}, {1}, {1}, 1, true, {0}}), {5, 4, 7},
                 [](const at::Tensor& x, const Tensors& p) { return at::conv_transpose1d(x, p[0], p[1], 2, 1); });
}

TEST_CASE("pooling, upsampling, flattening and group norm have the bits of LibTorch", "[parity]") {
  const std::vector<std::int64_t> sizes = {5, 4, 9, 8};
  expect_bits_of(MaxPool2d(2), sizes, [](const at::Tensor& x, const Tensors&) { return at::max_pool2d(x, 2, 2); });
  expect_bits_of(MaxPool2d(3, 2, 1), sizes,
                 [](const at::Tensor& x, const Tensors&) { return at::max_pool2d(x, 3, 2, 1); });
  expect_bits_of(AvgPool2d(3, 2, 1), sizes,
                 [](const at::Tensor& x, const Tensors&) { return at::avg_pool2d(x, 3, 2, 1); });
  expect_bits_of(GlobalAvgPool(), sizes, [](const at::Tensor& x, const Tensors&) {
    return at::adaptive_avg_pool2d(x, {1, 1}).flatten(1);
  });
  expect_bits_of(Upsample(3), sizes, [](const at::Tensor& x, const Tensors&) {
    return at::upsample_nearest2d(x, {27, 24});
  });
  expect_bits_of(Flatten(), sizes, [](const at::Tensor& x, const Tensors&) { return x.flatten(1); });
  expect_bits_of(GroupNorm(2, 4), sizes,
                 [](const at::Tensor& x, const Tensors& p) { return at::group_norm(x, 2, p[0], p[1]); });
}

TEST_CASE("batch norm has the bits of torch.nn.BatchNorm, and its running statistics within float32 rounding",
          "[parity]") {
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{5, 4, 9, 8}, {6, 4, 7}, {7, 4}, {2, 4}, {1, 4, 1, 3}}) {
    INFO(join(sizes));
    const BatchNorm layer(4, 0.1);
    Held held(layer, at::empty(sizes));
    Tensors leaves;
    for (const Parameter& parameter : held.parameters()) leaves.push_back(parameter.value.clone().requires_grad_(true));
    const at::Tensor mean = at::zeros({4}), variance = at::ones({4});
    for (int step = 0; step < 3; ++step) {
      const at::Tensor x = drawn(sizes, concat("x", step)) * 3 + 2;
      const Held::Run ours = held.train(x);
      const at::Tensor input = x.clone().requires_grad_(true);
      const at::Tensor output = at::batch_norm(input, leaves[0], leaves[1], mean, variance, true, 0.1, 1e-5, true);
      output.backward(Held::output_gradient(output));
      CHECK(at::equal(ours.output, output));
      CHECK(at::equal(ours.input_gradient, input.grad()));
      layer.end_step(held.buffers(), {ours.collected});
      CHECK(at::allclose(held.buffers()[0].value, mean, 1e-6, 1e-6));
      CHECK(at::allclose(held.buffers()[1].value, variance, 1e-6, 1e-6));
      CHECK(held.buffers()[2].value.item<std::int64_t>() == step + 1);
      CHECK(at::equal(held.evaluate(x), at::batch_norm(x, leaves[0], leaves[1], held.buffers()[0].value,
                                                       held.buffers()[1].value, false, 0.1, 1e-5, true)));
    }
    for (std::size_t i = 0; i < leaves.size(); ++i) CHECK(at::equal(held.parameters()[i].gradient, leaves[i].grad()));
  }
}

TEST_CASE("batch norm merges uneven micro-batches to the statistics of the whole batch", "[parity]") {
  const BatchNorm layer(3, 0.25);
  const at::Tensor x = drawn({9, 3, 4, 2}, "x") * at::tensor({1.0, 10.0, 0.1}).to(at::kFloat).view({1, 3, 1, 1}) + 5;
  Held held(layer, x);
  std::vector<Tensors> collected;
  for (const at::Tensor& slice : x.split_with_sizes({4, 4, 1})) collected.push_back(held.train(slice).collected);
  layer.end_step(held.buffers(), collected);
  const at::Tensor exact = x.to(at::kDouble);
  const auto [variance, mean] = at::var_mean(exact, at::IntArrayRef{0, 2, 3}, /*unbiased=*/true, false);
  CHECK(at::allclose(held.buffers()[0].value.to(at::kDouble), 0.25 * mean, 1e-6, 1e-7));
  CHECK(at::allclose(held.buffers()[1].value.to(at::kDouble), 0.25 * variance + 0.75, 1e-6, 1e-7));
  CHECK(held.buffers()[2].value.item<std::int64_t>() == 1);
}

TEST_CASE("batch norm refuses to train on one value per channel, as torch does, and evaluates it", "[parity]") {
  const BatchNorm layer(3);
  const at::Tensor x = drawn({1, 3}, "x");
  Held held(layer, x);
  CHECK_THROWS_WITH(held.train(x),
                    Catch::Contains("expected more than 1 value per channel when training, got input size [1, 3]"));
  CHECK(held.evaluate(x).sizes() == x.sizes());
  CHECK(layer.describe({spec_of(x)}).least_rows == 2);
  CHECK(layer.describe({{"x", at::kFloat, {1, 3, 2, 1}}}).least_rows == 1);
}

TEST_CASE("a convolution in bf16 keeps a float32 master and float32 gradients", "[parity]") {
  const Conv2d layer(3, 4, {3}, {{1}, {1}, {1}, 1, true, {0}});
  const at::Tensor x = drawn({4, 3, 6, 6}, "x").to(at::kBFloat16);
  Held held(layer, x, at::kBFloat16);
  const Held::Run run = held.train(x);
  CHECK(run.output.scalar_type() == at::kBFloat16);
  CHECK(run.input_gradient.scalar_type() == at::kBFloat16);
  const at::Tensor dy = Held::output_gradient(run.output);
  for (const Parameter& parameter : held.parameters()) {
    CHECK(parameter.value.scalar_type() == at::kFloat);
    CHECK(parameter.gradient.scalar_type() == at::kFloat);
  }
  CHECK(at::equal(held.parameters()[1].gradient, dy.sum({0, 2, 3}, false, at::kFloat)));
  const at::Tensor exact = std::get<1>(
      at::convolution_backward(dy.to(at::kFloat), x.to(at::kFloat), held.parameters()[0].value, at::IntArrayRef{4},
                               {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, 1, {false, true, false}));
  CHECK(at::allclose(held.parameters()[0].gradient, exact, 2e-2, 2e-1));
}

TEST_CASE("a first layer computes no input gradient, and its weight gradient is the same", "[parity]") {
  const Conv2d layer(3, 4, {3});
  const at::Tensor x = drawn({4, 3, 6, 6}, "x");
  Held with(layer, x), without(layer, x);
  CHECK(with.train(x, true).input_gradient.defined());
  without.train(x, false);
  for (std::size_t i = 0; i < 2; ++i) CHECK(at::equal(with.parameters()[i].gradient, without.parameters()[i].gradient));
}

TEST_CASE("image layers say what does not fit before anything is built", "[parity]") {
  const EntrySpec image{"x", at::kFloat, {2, 3, 4, 5}};
  CHECK_THAT(
      refusal(Conv2d(4, 8, {3}), image),
      Catch::Contains(
          "a conv2d layer got x Float [2, 3, 4, 5]; it expects a floating-point entry [rows, 4, height, width]"));
  CHECK_THAT(refusal(Conv2d(3, 8, {5}), image),
             Catch::Contains("would put out 0 positions") && Catch::Contains("too small"));
  CHECK_THAT(refusal(Conv1d(3, 8, {5}), image), Catch::Contains("[rows, 3, length]"));
  CHECK_THAT(refusal(ConvTranspose2d(3, 8, {1}, {{1}, {3}, {1}, 1, true, {0}}), image), Catch::Contains("positions"));
  CHECK_THAT(refusal(MaxPool2d(6, 6, 0), image), Catch::Contains("max_pool2d") && Catch::Contains("0 positions"));
  CHECK_THAT(refusal(Upsample(2), {"x", at::kFloat, {2, 3}}), Catch::Contains("[rows, channels, height, width]"));
  CHECK_THAT(refusal(GroupNorm(2, 4), image), Catch::Contains("[rows, 4, height, width]"));
  CHECK_THAT(refusal(BatchNorm(4), {"x", at::kFloat, {2, 3}}), Catch::Contains("[rows, 4]"));
  CHECK_THAT(refusal(BatchNorm(3), {"x", at::kLong, {2, 3}}), Catch::Contains("floating-point"));
  CHECK_THROWS_WITH(Concat().describe({image, {"y", at::kFloat, {2, 9, 4, 4}}}), Catch::Contains("must agree"));
  CHECK(Concat().describe({image, {"y", at::kFloat, {2, 9, 4, 5}}}).outputs[0].sizes ==
        std::vector<std::int64_t>{2, 12, 4, 5});
  CHECK_THROWS_WITH(Conv2d(4, 6, {3}, {{1}, {0}, {1}, 3, true, {0}}),
                    Catch::Contains("3 groups; the groups must divide both"));
  CHECK_THROWS_WITH(Conv2d(4, 6, {3, 3, 3}), Catch::Contains("kernel: got [3, 3, 3], expected one number, or 2"));
  CHECK_THROWS_WITH(Conv2d(4, 6, {3}, {{0}, {0}, {1}, 1, true, {0}}),
                    Catch::Contains("stride: got 0, expected an integer from 1"));
  CHECK_THROWS_WITH(Conv2d(4, 6, {3}, {{2}, {0}, {1}, 1, true, {1}}), Catch::Contains("only a transposed one"));
  CHECK_THROWS_WITH(GroupNorm(3, 4), Catch::Contains("4 channels in 3 groups"));
  CHECK_THROWS_WITH(MaxPool2d(2, 2, 2), Catch::Contains("half the kernel"));
}

TEST_CASE("segmentation cross entropy is that of every pixel, ignored ones left out", "[parity]") {
  const auto loss = loss_kinds().get("segmentation_cross_entropy").make({});
  const at::Tensor output = drawn({3, 4, 5, 6}, "output").requires_grad_(true);
  at::Tensor targets;
  {
    const RandomScope scope(5);
    targets = at::randint(4, {3, 5, 6}, at::kLong);
    targets.masked_fill_(at::rand({3, 5, 6}) < 0.3, -100);
  }
  CHECK(loss->denominator(targets) == targets.ge(0).sum().item<double>());
  const at::Tensor sum = loss->numerator(output, targets);
  CHECK(at::equal(sum, at::nll_loss2d(at::log_softmax(output, 1), targets, {}, at::Reduction::Sum, -100)));
  const at::Tensor rows = output.permute({0, 2, 3, 1}).reshape({-1, 4});
  const at::Tensor flat =
      loss_kinds().get("sparse_categorical_cross_entropy").make({})->numerator(rows, targets.flatten());
  CHECK(at::allclose(sum, flat, 1e-5, 0));
  CHECK_THROWS_WITH(loss->check({"x", at::kFloat, {3, 4, 5, 6}}, {"t", at::kLong, {3, 5, 5}}),
                    Catch::Contains("[rows, classes, height, width]"));
  CHECK_THROWS_WITH(loss->check({"x", at::kFloat, {3, 4, 5, 6}}, {"t", at::kLong, {3, 5, 6}, false, true, 7}),
                    Catch::Contains("puts out 4 classes") && Catch::Contains("needs 7"));
}
