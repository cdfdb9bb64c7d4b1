// SPDX-License-Identifier: Apache-2.0
//
// Every loss: its numbers against the formula, and its bits for every cut where micro-batches do not divide the batch.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "runtime/training/losses.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Loss sum and gradient by LibTorch, in the graph of a fresh leaf.
struct Numbers {
  double sum = 0;
  at::Tensor gradient;
};

Numbers numbers_of(const Loss& loss, const at::Tensor& output, const at::Tensor& targets) {
  const at::AutoGradMode grad(true);
  const at::Tensor leaf = output.clone().requires_grad_(true);
  const at::Tensor sum = loss.numerator(leaf, targets);
  return {sum.item<double>(), torch::autograd::grad({sum}, {leaf})[0]};
}

/// A dataset like regression_data, with its targets pressed into [0, 1].
class Probabilities : public Dataset {
 public:
  explicit Probabilities(std::shared_ptr<const Dataset> from) : from_(std::move(from)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override { return from_->entries(rows); }
  std::int64_t size() const override { return from_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors read = from_->read(samples);
    read[1] = at::sigmoid(read[1]);
    return read;
  }

 private:
  std::shared_ptr<const Dataset> from_;
};

}  // namespace

TEST_CASE("binary cross-entropy is -sum (t log s(x) + (1 - t) log(1 - s(x))) / elements, with the gradient s(x) - t",
          "[parity]") {
  const auto loss = loss_kinds().get("binary_cross_entropy").make({});
  const at::Tensor x = at::tensor({-3.0F, -0.5F, 0.0F, 0.25F, 2.0F, 7.0F}).view({3, 2});
  const at::Tensor targets = at::tensor({0.0F, 1.0F, 0.5F, 0.125F, 1.0F, 0.0F}).view({3, 2});
  CHECK(loss->denominator(targets) == 6);
  const Numbers got = numbers_of(*loss, x, targets);
  double expected = 0;
  for (std::int64_t i = 0; i < 6; ++i) {
    const double logit = x.flatten()[i].item<double>(), t = targets.flatten()[i].item<double>();
    const double s = 1 / (1 + std::exp(-logit));
    expected -= t * std::log(s) + (1 - t) * std::log(1 - s);
    CHECK(got.gradient.flatten()[i].item<double>() == Approx(s - t).margin(1e-6));
  }
  CHECK(got.sum == Approx(expected).epsilon(1e-6));
  // Where 1 - s(x) is 0 in float32 the formula is infinite, and the loss is not.
  const Numbers far = numbers_of(*loss, at::tensor({200.0F}), at::tensor({0.0F}));
  CHECK(far.sum == 200);
  CHECK(far.gradient.item<float>() == 1);
}

TEST_CASE("mean squared error and cross-entropy are their formulas", "[parity]") {
  const at::Tensor x = at::tensor({1.0F, -2.0F, 0.5F, 3.0F, 0.0F, 1.0F}).view({2, 3});
  const auto squares = loss_kinds().get("mean_squared_error").make({});
  CHECK(numbers_of(*squares, x, at::zeros({2, 3})).sum == 15.25);
  CHECK(squares->denominator(x) == 6);

  const auto classes = loss_kinds().get("sparse_categorical_cross_entropy").make({});
  const at::Tensor targets = at::tensor(std::vector<std::int64_t>{2, -100});
  const double expected = std::log(std::exp(1.0) + std::exp(-2.0) + std::exp(0.5)) - 0.5;
  CHECK(numbers_of(*classes, x, targets).sum == Approx(expected).epsilon(1e-6));
  CHECK(classes->denominator(targets) == 1);

  const auto pixels = loss_kinds().get("segmentation_cross_entropy").make({});
  const at::Tensor image = x.view({2, 3, 1, 1});
  CHECK(numbers_of(*pixels, image, targets.view({2, 1, 1})).sum == numbers_of(*classes, x, targets).sum);
  CHECK(pixels->denominator(targets.view({2, 1, 1})) == 1);
}

TEST_CASE("every loss trains to the same bits for every cut", "[parity]") {
  const DataSplits numbers = regression_data(21, 6, 3);
  const DataSplits probabilities = {std::make_shared<Probabilities>(numbers.train),
                                    std::make_shared<Probabilities>(numbers.eval)};
  struct Case {
    Model model;
    DataSplits data;
  };
  const std::map<std::string, Case> cases = {
      {"mean_squared_error", {mlp_with_skip(0.1, true), numbers}},
      {"mean_absolute_error", {mlp_with_skip(0.1, true), numbers}},
      {"huber", {mlp_with_skip(0.1, true), numbers}},
      {"binary_cross_entropy", {mlp_with_skip(0.1, true), probabilities}},
      {"hinge", {mlp_with_skip(0.1, true), probabilities}},
      {"squared_hinge", {mlp_with_skip(0.1, true), probabilities}},
      {"categorical_cross_entropy", {mlp_with_skip(0.1, true), probabilities}},
      {"categorical_hinge", {mlp_with_skip(0.1, true), probabilities}},
      {"sparse_categorical_cross_entropy", {small_gpt(2, 0.1, true), token_data(21, 8, 11)}},
      {"segmentation_cross_entropy",
       {model_of("type: unet, inputs: 2, classes: 3, channels: 2, depth: 1, norm: none"),
        image_data(21, 2, 4, 3, /*segmentation=*/true)}}};
  const Table<LossKind> kinds = loss_kinds();
  for (const LossKind& kind : kinds.entries()) {
    INFO(kind.name);
    CHECK(kind.make({})->name() == kind.name);
    REQUIRE(cases.count(kind.name) == 1);
    const Case& the = cases.at(kind.name);
    const Config config = small_config(kind.name, 8, 5);
    const RunRecord reference = reference_run(the.model, the.data, config);
    CHECK(reference.results[0].heads.at(0).loss() > 0);
    for (const int stages : {2, 3})
      for (const char* schedule : {"1f1b", "zb_h1"})
        CHECK(difference(reference, the.model, the.data, with_pipeline(config, stages, schedule)) == "");
  }
}
